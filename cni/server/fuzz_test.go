package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// of is the agent in one run of a fuzz target.
func (a *testAgent) of(t *testing.T) *testAgent {
	t.Helper()
	agent := *a.Agent
	agent.T = t
	return &testAgent{Agent: &agent, server: a.server}
}

// state says in what memory, records and enforcement differ, and what is wrong with the records.
func (a *testAgent) state() (ids []string) {
	a.T.Helper()
	a.Settle()
	for _, attachment := range a.server.Attachments() {
		ids = append(ids, attachment.ID())
	}
	onDisk, bad, _ := a.server.records.ReadAll()
	var recorded []string
	for _, attachment := range onDisk {
		recorded = append(recorded, attachment.ID())
	}
	enforced := a.Enforcer.IDs()
	if !slices.Equal(ids, recorded) || !slices.Equal(ids, enforced) || len(bad) > 0 {
		a.T.Errorf("attachments %q, records %q, enforced %q, bad %v", ids, recorded, enforced, bad)
	}
	return ids
}

// FuzzRequests sends any body to any path. Each gets an answer of the protocol; what it attaches
// can be read back by the next server; and the attachment that is there stays, unless the request
// names it.
func FuzzRequests(f *testing.F) {
	a := newAgent(f)
	client := cni.NewClient(a.Socket)
	good := cnitest.GoodRequest()
	a.MustAdd(good)
	id := cni.AttachmentID(good.ContainerID, good.IfName)
	paths := []string{cni.PathAdd, cni.PathDel, cni.PathCheck, cni.PathStatus, cni.PathWhy,
		"/v2/add"}
	for i, body := range []any{
		cni.AddRequest{
			ContainerID: "c", IfName: "eth0", PodNamespace: "dev", PodName: "web", PodUID: "u",
			Network: "n", Netns: "/x",
			HostPorts: []cni.HostPort{{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}},
			Bandwidth: cni.Bandwidth{IngressRate: 8, IngressBurst: 8},
		},
		cni.AddRequest{ContainerID: "c", IfName: "eth0", PodNamespace: "dev", PodName: "web",
			PodUID: "u", PolicyOnly: true, Addresses: cnitest.Addrs("10.1.0.9")},
		cni.DelRequest{ContainerID: "c", IfName: "eth0"},
		cni.CheckRequest{ContainerID: "c", IfName: "eth0", Addresses: cnitest.Addrs("10.1.0.1")},
		cni.StatusRequest{},
	} {
		data, err := json.Marshal(body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(max(0, i-1)), data)
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		path := paths[int(which)%len(paths)]
		ctx, cancel := context.WithTimeout(t.Context(), cnitest.Patience)
		defer cancel()
		status, answer, err := client.Do(ctx, http.MethodPost, path, body)
		if err != nil {
			t.Fatal(err)
		}
		refusal := types.Error{}
		switch {
		case status == http.StatusOK:
		case status == http.StatusInternalServerError &&
			!strings.Contains(string(answer), "is taken"):
			t.Errorf("the agent failed: %s", answer)
		case json.Unmarshal(answer, &refusal) != nil || refusal.Code == 0 || refusal.Msg == "":
			t.Errorf("%d: %s", status, answer)
		}
		a := a.of(t)
		ids := a.state()
		named := strings.Contains(string(body), good.PodName) ||
			strings.Contains(string(body), "0123abcd") || bytes.Contains(body, []byte(`\`))
		if !slices.Contains(ids, id) {
			if !named {
				t.Errorf("%s with %q took away %s", path, body, id)
			}
			a.MustAdd(good)
		}
		for _, other := range ids { // so that what one run attached isn't in the way of the next
			if container, ifName, _ := strings.Cut(other, "/"); other != id {
				a.MustDel(cni.AddRequest{ContainerID: container, IfName: ifName})
			}
		}
		a.Clock.Advance(time.Hour) // nothing cools down
	})
}

// FuzzSocket sends any bytes. The server goes on, and keeps what it has.
func FuzzSocket(f *testing.F) {
	a := newAgent(f)
	a.MustAdd(cnitest.GoodRequest())
	f.Add([]byte(post(cni.PathStatus, "{}")))
	f.Add([]byte("POST /v1/add HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: " +
		"chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("GET /v1/why?src=dev/web&dst=%31 HTTP/1.0\r\nExpect: " +
		"100-continue\r\nConnection: upgrade\r\n\r\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		conn, err := net.Dial("unix", a.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(cnitest.Patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(message) // the server may have closed
		if socket, ok := conn.(*net.UnixConn); ok {
			_ = socket.CloseWrite()
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("no end of an answer to %q", message)
		}
		ids := a.of(t).state()
		if len(ids) != 1 && !bytes.Contains(message, []byte(cni.PathAdd)) &&
			!bytes.Contains(message, []byte(cni.PathDel)) {
			t.Errorf("%q left %q", message, ids)
		}
	})
}

// FuzzState starts an agent on a state directory in which a crash, or somebody, left anything. It
// starts, keeps the attachment that it can read, and gives its address to nobody else.
func FuzzState(f *testing.F) {
	good := cnitest.NewAttachment("good", "pod-a", "10.1.0.1", "fd00:1::1")
	other, err := json.Marshal(cnitest.NewAttachment("x", "pod-x", "10.1.0.2"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("x@eth0.json", other,
		[]byte(`{"last":["10.1.0.9"],"taken":["10.1.0.2"],"cooling":{"10.1.0.3":"2026-01-01T00:00:00Z"}}`), []byte(`{"bootID":"b","beat":5,"ready":true}`))
	f.Add("good@eth0.json.new-1", []byte(`{`),
		[]byte(`{"last":[""],"taken":["fd00:1::2%eth0","10.1.0.255"],"cooling":{"":"9999-01-01T00:00:00Z"}}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, name string, content, ledgerText, beat []byte) {
		stateDir := t.TempDir()
		r := cni.OpenRecords(stateDir)
		if err := errors.Join(r.MakeDirectories(), r.Write(good)); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(name, "/\x00") || name == "" || len(name) > 200 ||
			name == filepath.Base(r.Path("good", "eth0")) {
			name = "x@eth0.json"
		}
		// there are names that can't be
		_ = os.WriteFile(filepath.Join(r.Dir(), name), content, 0o600)
		for path, text := range map[string][]byte{r.LedgerPath(): ledgerText,
			cni.HeartbeatPath(stateDir): beat} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := New(Options{
			Socket: filepath.Join(stateDir, "s"), StateDir: stateDir, Enforcer: &cnitest.Enforcer{},
			NetNS: cnitest.NoNetNS{},
			Now:   func() time.Duration { return cnitest.Noon }, addTimeout: time.Minute,
		})
		if err != nil {
			t.Fatalf("it doesn't start: %v", err)
		}
		s.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/28", "fd00:1::/64"))
		s.SetDatapathReady(true, "")
		all := s.Attachments()
		if !slices.ContainsFunc(all, func(a cni.Attachment) bool { return a.ID() == good.ID() }) &&
			len(content) > 0 {
			if !takesPlaceOf(t, good, name, content) {
				t.Fatalf("the good record is lost: %v", all)
			}
		}
		answer, err := s.add(t.Context(), cnitest.RequestFor("new", "pod-new"))
		if err != nil {
			cnitest.MustBeOfTheSpecification(t, err)
			return
		}
		for _, attached := range all {
			for _, p := range answer.Addresses {
				if slices.Contains(attached.Addresses, p.Addr()) {
					t.Errorf("%s is given again", p)
				}
			}
		}
	})
}

// takesPlaceOf tells whether a file is the record of an attachment that has an address or the link
// of another's.
func takesPlaceOf(t *testing.T, good cni.Attachment, name string, content []byte) bool {
	t.Helper()
	r := cnitest.NewRecords(t)
	_ = os.WriteFile(filepath.Join(r.Dir(), name), content, 0o600) // there are names that can't be
	all, _, err := r.ReadAll()
	if err != nil || len(all) != 1 {
		return false
	}
	isIts := func(addr netip.Addr) bool { return slices.Contains(good.Addresses, addr) }
	return all[0].Interface == good.Interface || slices.ContainsFunc(all[0].Addresses, isIts)
}
