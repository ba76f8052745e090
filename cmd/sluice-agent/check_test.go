package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/preflight"
	"github.com/sluice-net/sluice/test/testnet"
)

// checked is a node on which nothing is in the way, and the flags that say where it is.
func checked(t *testing.T) (s testnet.Space, args []string) {
	t.Helper()
	s = testnet.NewSpace(t)
	s.Run(`ip link add eth0 up type veth peer name eth1
		ip link set eth1 up
		ip addr add 192.0.2.1/24 dev eth0
		ip route add default via 192.0.2.9`)
	dir := t.TempDir()
	for _, name := range []string{"bin-dir", "cni-conf-dir", "state-dir"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil { //nolint:gosec // as on a node
			t.Fatal(err)
		}
		args = append(args, "--"+name+"="+path)
	}
	conf := filepath.Join(dir, "net-conf.json")
	writeText(t, conf, usualNetConf)
	return s, append(args, "--net-conf="+conf)
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runChecked is check with these arguments on the node.
func runChecked(t *testing.T, s testnet.Space, args []string) (printed string, ok bool) {
	t.Helper()
	c, err := parseCheck(args)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.Do(func() (err error) {
		ok, err = c.run(t.Context(), &out)
		return err
	})
	return out.String(), ok
}

// TestCheckExitCodes: 0 where nothing fails, 1 where something does, and 2 with an error that names
// what is wrong with the question.
func TestCheckExitCodes(t *testing.T) {
	silenceStderr(t)
	t.Setenv("NODE_NAME", "")
	s, good := checked(t)
	dir := t.TempDir()
	odd, bad := filepath.Join(dir, "odd.json"), filepath.Join(dir, "bad.yaml")
	writeText(t, odd, `{"Network": "10.244.0.0/16", "Backend": {"VNI": -1}}`)
	writeText(t, bad, "clusters: 5")
	missing := filepath.Join(dir, "missing")
	writeText(t, missing+".conf", "{}")
	for _, c := range []struct {
		args []string
		want int
		says string
	}{
		{nil, 0, ""},
		{[]string{"--cni-conf-dir=" + dir}, 0, ""}, // a later one only warns
		{[]string{"--bin-dir=" + odd}, exitUnfit, "isn't ready"},
		{[]string{"--none"}, exitBadUsage, "-none"},
		{[]string{"--json=maybe"}, exitBadUsage, "json"},
		{[]string{"now"}, exitBadUsage, `argument "now"`},
		{[]string{"--net-conf=" + missing}, exitBadUsage, "--net-conf=" + missing + ": open"},
		{[]string{"--net-conf=" + odd}, exitBadUsage, "Backend.VNI: -1: expected"},
		{[]string{"--kubeconfig=" + bad}, exitBadUsage, "--node-name: expected"},
		{[]string{"--node-name=n1", "--kubeconfig=" + missing}, exitBadUsage,
			"--kubeconfig=" + missing},
		{[]string{"--node-name=n1", "--kubeconfig=" + bad}, exitBadUsage, "--kubeconfig=" + bad},
	} {
		var err error
		captureStdout(t, func() {
			s.Do(func() error {
				err = runCheck(t.Context(), slices.Concat(good, c.args))
				return nil
			})
		})
		got := 0
		if err != nil {
			got = exitCode(err)
		}
		if got != c.want || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%q: code %d and %v, want %d and %q", c.args, got, err, c.want, c.says)
		}
	}
}

// TestCheckJSON: the same results, for programs.
func TestCheckJSON(t *testing.T) {
	t.Parallel()
	s, args := checked(t)
	s.Run("iptables-legacy -P FORWARD DROP")
	text, ok := runChecked(t, s, append(args, "--json"))
	var got struct {
		Status preflight.Status
		Checks []preflight.Result
	}
	err := json.Unmarshal([]byte(text), &got)
	if err != nil || !ok || got.Status != preflight.Warn {
		t.Fatalf("ok %t, error %v: %s", ok, err, text)
	}
	plain, _ := runChecked(t, s, args)
	for _, r := range got.Checks {
		if !strings.Contains(plain, r.String()) {
			t.Errorf("%q isn't among the lines\n%s", r, plain)
		}
	}
	if lines := strings.Count(plain, "\n"); lines != len(got.Checks)+1 {
		t.Errorf("%d lines, and %d results", lines, len(got.Checks))
	}
}

// TestCheckAsksForNodes: with a kubeconfig the Nodes decide; where there is no answer, that fails,
// and the other checks are done all the same.
func TestCheckAsksForNodes(t *testing.T) {
	t.Parallel()
	s, args := checked(t)
	const node = `{"metadata": {"name": %q}, "spec": {"podCIDRs": [%q]}, ` +
		`"status": {"addresses": [{"type": "InternalIP", "address": %q}]}}`
	nodes := fmt.Sprintf(`{"items": [`+node+`,`+node+`]}`, "n1", "10.244.1.0/24", "192.0.2.1",
		"n2", "10.244.2.0/24", "192.0.2.2")
	for name, c := range map[string]struct {
		code int
		body string
		ok   bool
		says []string
	}{
		"both": {200, nodes, true,
			[]string{"has 2, each with podCIDRs", "reaches 1 other nodes"}},
		"forbidden": {403, `{}`, false, []string{"fail  nodes", "pass  network"}},
		"away":      {503, ``, false, []string{"fail  nodes", "pass  network"}},
		"no such":   {200, `{"items": []}`, false, []string{"has no Node n1"}},
		"outside": {200, strings.ReplaceAll(nodes, "10.244.1", "10.9.1"), false,
			[]string{"pod CIDR 10.9.1.0/24 of node n1 is outside the pod network 10.244.0.0/16"}},
		"elsewhere": {200, strings.ReplaceAll(nodes, "192.0.2.1", "192.0.2.7"), false,
			[]string{"no link has the underlay address 192.0.2.7"}},
		"twice": {200, strings.ReplaceAll(nodes, "10.244.2", "10.244.1"), true,
			[]string{"warn  network", "n2: "}},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(c.code)
			_, _ = w.Write([]byte(c.body)) // the client says what it misses
		}))
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		writeText(t, kubeconfig, fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\n"+
			"clusters: [{name: c, cluster: {server: %q}}]\n"+
			"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u}]\n", server.URL))
		printed, ok := runChecked(t, s,
			append(slices.Clone(args), "--node-name=n1", "--kubeconfig="+kubeconfig))
		server.Close()
		for _, text := range c.says {
			if ok != c.ok || !strings.Contains(printed, text) {
				t.Errorf("%s: ok %t, want %t and %q in\n%s", name, ok, c.ok, text, printed)
			}
		}
	}
}
