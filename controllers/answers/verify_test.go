package answers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/events"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/internal/processortime"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/benchcluster"
	"github.com/sluice-net/sluice/test/cases"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
	"github.com/sluice-net/sluice/verify"
	"github.com/sluice-net/sluice/verify/kernel"
)

// askVerify asks as sluice-agent verify does.
func askVerify(t *testing.T, v *Verifier) VerifyAnswer {
	t.Helper()
	w := httptest.NewRecorder()
	VerifyHandler(v).ServeHTTP(w,
		httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/verify", http.NoBody))
	var out VerifyAnswer
	if err := json.NewDecoder(w.Body).Decode(&out); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d: %v", w.Code, err)
	}
	return out
}

// verifiedNode is a node with a pod that one peer may reach, in the kernel.
type verifiedNode struct {
	*Verifier

	node     *testnet.Node
	table    *table.Table
	recorder *events.FakeRecorder
}

func newVerifiedNode(t *testing.T) *verifiedNode {
	t.Helper()
	e, node, table := newEnforcer(t)
	e.Update(func(m *enforcer.Model) { fillVerified(t, m.Cluster) })
	commitOnce(t, e)
	recorder := events.NewFakeRecorder(10)
	return &verifiedNode{NewVerifier(e, kernel.Options{NetNS: node.NSFd()},
		notify.NodeEvents{Node: cases.NodeName, Recorder: recorder}, testr.New(t)), node, table,
		recorder}
}

// fillVerified fills a cluster with what is on that node.
func fillVerified(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, ns := range cases.Namespaces() {
		c.SetNamespace(ns.Name, ns.Labels)
	}
	pod := policy.PodFrom(cases.Pods()[0])
	c.SetPod(pod)
	c.SetEndpoint(policy.Endpoint{ID: "a", Pod: pod.ID, Interface: "slup1",
		Addresses: pod.Addresses})
	np, err := cases.RenderPolicy(pod.ID.Namespace+"/only",
		`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 80}]}]}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetPolicy(policy.Parse(np))
}

// TestVerifierSeesWhatIsThere: the table is equal, then different after an edit by hand, then
// unreadable after an edit of an unknown kind; each is reported, once.
func TestVerifierSeesWhatIsThere(t *testing.T) {
	t.Parallel()
	v := newVerifiedNode(t)
	node, recorder := v.node, v.recorder
	event := func(want string) {
		t.Helper()
		result, err := v.now(t.Context())
		v.report(result, 0, err)
		v.report(result, 0, err) // a second time it is no news
		got := ""
		for len(recorder.Events) > 0 {
			got += <-recorder.Events
		}
		if want == "" && got != "" || !strings.Contains(got, want) ||
			strings.Count(got, "Ruleset") > 1 {
			t.Errorf("want one Event with %q, got %q", want, got)
		}
	}
	if a := askVerify(t, v.Verifier); a.Error != "" || a.Total != 0 || a.Classes < 100 {
		t.Errorf("control: %+v", a)
	}
	event("")

	node.Nft("insert", "rule", "inet", nft.TableName, "ingress/1",
		"ip saddr 198.51.100.9 tcp dport 22 accept")
	a := askVerify(t, v.Verifier)
	if a.Error != "" || a.Total == 0 {
		t.Fatalf("an edit by hand isn't seen: %+v", a)
	}
	for _, want := range []string{"198.51.100.9 > ", "TCP 22",
		"passes it by chain ingress/1 rule 1", "denied, isolated by"} {
		if !strings.Contains(a.Differences[0], want) {
			t.Errorf("want %q in %s", want, a.Differences[0])
		}
	}
	event("RulesetDiffers")

	node.Nft("add", "rule", "inet", nft.TableName, "ingress/1", "meta mark 7 accept")
	if a := askVerify(t, v.Verifier); !strings.Contains(a.Error, "chain ingress/1") ||
		a.Total != 0 {
		t.Errorf("what nobody knows: %+v", a)
	}
	event("RulesetUnreadable")

	again := cluster.New(cluster.Options{Node: cases.NodeName})
	fillVerified(t, again)
	again.Take()
	if err := v.table.Sync(t.Context(),
		ruleset.NewRenderer(ruleset.Config{}).Ruleset(again)); err != nil {
		t.Fatal(err)
	}
	event("RulesetVerified")
	node.Nft("delete", "table", "inet", nft.TableName)
	if a := askVerify(t, v.Verifier); a.Total == 0 {
		t.Errorf("without a table: %+v", a)
	}
}

// TestVerifierKnowsOfRefusals: what the kernel refuses makes a difference, and the Event says where
// the reason is.
func TestVerifierKnowsOfRefusals(t *testing.T) {
	t.Parallel()
	for _, refused := range []int{0, 2} {
		recorder := events.NewFakeRecorder(1)
		v := NewVerifier(nil, kernel.Options{}, notify.NodeEvents{Node: "n1", Recorder: recorder},
			testr.New(t))
		v.report(verify.Result{Total: 1, Differences: make([]verify.Difference, 1)}, refused, nil)
		got := <-recorder.Events
		if strings.Contains(got, "it refuses 2 objects") != (refused > 0) {
			t.Errorf("%d objects are refused, but the Event says %q", refused, got)
		}
	}
}

// TestVerifierWaitsForCommits: while an update isn't in the kernel yet, nothing is compared.
func TestVerifierWaitsForCommits(t *testing.T) {
	t.Parallel()
	v := newVerifiedNode(t)
	v.enforcer.Update(func(*enforcer.Model) {}) // which isn't committed
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := v.now(ctx); err == nil {
		t.Error("it compared what isn't settled")
	}
}

// BenchmarkVerify: reading the kernel back, and a comparison of everything, on a node of 100 pods.
func BenchmarkVerify(b *testing.B) {
	for _, size := range benchcluster.Sizes() {
		c := benchcluster.New(size.Policies, size.Pods)
		c.Take()
		node := testnet.NewNode(b)
		table := packetworld.OpenTable(b, node)
		if err := table.Sync(context.Background(),
			ruleset.NewRenderer(ruleset.Config{}).Ruleset(c)); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("snapshot/%s", size), func(b *testing.B) {
			for b.Loop() {
				c.Snapshot()
			}
		})
		b.Run(fmt.Sprintf("read/%s", size), func(b *testing.B) {
			for b.Loop() {
				if _, err := kernel.Read(context.Background(),
					kernel.Options{NetNS: node.NSFd()}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("compare/%s", size), func(b *testing.B) {
			if os.Getenv("SLUICE_LONG") == "" {
				b.Skip("takes some ten seconds each time: set SLUICE_LONG=1")
			}
			p, err := kernel.Read(context.Background(), kernel.Options{NetNS: node.NSFd()})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				r, err := verify.NewPass(p, c.Snapshot().Meaning(),
					VerifiedNode(&ruleset.Config{})).Run(context.Background())
				if err != nil || r.Total > 0 {
					b.Fatal(err, r.Total)
				}
				b.ReportMetric(float64(r.Classes), "classes")
			}
		})
		if err := table.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyContinuously: the share of a core that comparing all the time takes of an agent
// that does nothing else, garbage collection included; over a minute, in the long form only.
func BenchmarkVerifyContinuously(b *testing.B) {
	if os.Getenv("SLUICE_LONG") == "" {
		b.Skip("takes a minute for each size: set SLUICE_LONG=1")
	}
	for _, size := range benchcluster.Sizes() {
		b.Run(size.String(), func(b *testing.B) {
			node := testnet.NewNode(b)
			e := enforcer.New(packetworld.OpenTable(b, node),
				enforcer.NewModel(cluster.Options{Node: benchcluster.Node}, ruleset.Config{}),
				enforcer.Options{})
			e.Update(func(m *enforcer.Model) {
				benchcluster.Fill(m.Cluster, size.Policies, size.Pods)
			})
			commitOnce(b, e)
			v := NewVerifier(e, kernel.Options{NetNS: node.NSFd()}, notify.NodeEvents{},
				logr.Discard())
			for b.Loop() {
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				begin, before := time.Now(), processortime.Used(unix.RUSAGE_SELF)
				if err := v.Run(ctx); err != nil {
					b.Fatal(err)
				}
				cancel()
				b.ReportMetric(100*float64(processortime.Used(unix.RUSAGE_SELF)-before)/float64(
					time.Since(begin)), "%-of-a-core")
			}
		})
	}
}
