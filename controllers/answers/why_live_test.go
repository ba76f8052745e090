package answers

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

func askLive(t *testing.T, e *enforcer.Enforcer,
	list func([]netip.Addr) ([]enforcer.Connection, error),
	src, dst, port string) (status int, a WhyAnswer) {
	t.Helper()
	query := url.Values{"src": {src}, "dst": {dst}, "port": {port}}
	w := httptest.NewRecorder()
	WhyLiveHandler(e, list, testr.New(t)).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/why-live?"+query.Encode(), nil))
	if w.Code != http.StatusOK {
		return w.Code, WhyAnswer{Text: w.Body.String()}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return w.Code, a
}

func TestWhyLive(t *testing.T) {
	t.Parallel()
	e, _, _ := newEnforcer(t)
	np, err := cases.RenderPolicy("dev/p",
		`{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	e.Update(func(c *enforcer.Model) {
		for _, ns := range cases.Namespaces() {
			c.SetNamespace(ns.Name, ns.Labels)
		}
		c.SetNode(policy.NodeFrom(cases.Node()))
		for _, p := range cases.Pods() {
			c.SetPod(policy.PodFrom(p))
		}
		c.SetPolicy(policy.Parse(np))
	})
	web, db := netip.MustParseAddr(cases.Addr("dev/web", 4)),
		netip.MustParseAddr(cases.Addr("dev/db", 4))
	service := netip.MustParseAddrPort("10.96.0.10:8080")
	connection := func(protocol uint8, from netip.Addr, fromPort uint16, to netip.Addr,
		port uint16) enforcer.Connection {
		return enforcer.Connection{
			Protocol: protocol, Source: netip.AddrPortFrom(from, fromPort),
			Destination: netip.AddrPortFrom(to, port), ReplySource: netip.AddrPortFrom(to, port),
			State: conntrack.Established,
		}
	}
	unanswered, closed := connection(policy.ProtocolTCP, web, 1006, db, 83),
		connection(policy.ProtocolTCP, web, 1007, db, 84)
	unanswered.State, closed.State = conntrack.Unanswered, conntrack.Closed
	translated := connection(policy.ProtocolTCP, web, 1003, db, 80)
	translated.Destination = service
	cut := connection(policy.ProtocolTCP, web, 1002, db, 81)
	cut.Cut = true
	all := []enforcer.Connection{
		connection(policy.ProtocolTCP, web, 1000, db, 80),
		connection(policy.ProtocolTCP, web, 1001, db, 82), cut, translated,
		connection(policy.ProtocolUDP, db, 1004, web, 80),
		connection(policy.ProtocolTCP, netip.MustParseAddr("192.0.2.1"), 1005, db, 80),
		unanswered, closed,
	}
	list := func([]netip.Addr) ([]enforcer.Connection, error) { return all, nil }
	for _, tc := range []struct {
		src, dst, port string
		allowed        bool
		connections    int
		text           []string
	}{
		{"dev/web", "dev/db", "", false, 7, []string{
			web.String() + ":1000 -> " + db.String() + ":80, established: allowed",
			":82, established, goes on: denied", ":81, established, being cut: denied",
			":83, unanswered: denied", ":84, closed: denied",
			":80 by way of 10.96.0.10:8080, established: allowed\n  egress of dev/web: open, no " +
				"policy selects the pod\n  ingress of dev/db: allowed by dev/p",
			"UDP " + db.String() + ":1004",
		}},
		{"dev/web", "dev/db", "80", true, 2, []string{"by way of"}},
		{"dev/web", "dev/db", "80/udp", true, 0, []string{"tracks no such connection"}},
		{"dev/db", "dev/web", "80/udp", true, 1, nil},
		{"dev/web", "10.96.0.10", "8080", true, 1, []string{"by way of"}},
		{"192.0.2.1", "dev/db", "", true, 1, []string{"allowed by dev/p ingress rule 0"}},
	} {
		status, answer := askLive(t, e, list, tc.src, tc.dst, tc.port)
		if status != http.StatusOK || answer.Allowed != tc.allowed ||
			strings.Count(answer.Text, " -> ") != tc.connections {
			t.Errorf("%+v: status %d: %+v", tc, status, answer)
		}
		for _, want := range tc.text {
			if !strings.Contains(answer.Text, want) {
				t.Errorf("%+v: no %q in\n%s", tc, want, answer.Text)
			}
		}
	}
	if status, answer := askLive(t, e, list, "dev/web", "dev/db",
		"80/dccp"); status != http.StatusBadRequest {
		t.Errorf("a port that is none: %d: %s", status, answer.Text)
	}
	if status, answer := askLive(t, e, list, "dev/web", "dev/none",
		""); status != http.StatusBadRequest {
		t.Errorf("a pod that is none: %d: %s", status, answer.Text)
	}
	broken := func([]netip.Addr) ([]enforcer.Connection, error) {
		return nil, errors.New("no such table")
	}
	if status, answer := askLive(t, e, broken, "dev/web", "dev/db", ""); status !=
		http.StatusInternalServerError || !strings.Contains(answer.Text, "no such table") {
		t.Errorf("without a list: %d: %s", status, answer.Text)
	}
	all = slices.Repeat(all[:1], mostConnections+3)
	if _, answer := askLive(t, e, list, "dev/web", "dev/db", ""); !strings.HasSuffix(answer.Text,
		"and 3 more") {
		t.Errorf("of very many: %s", answer.Text[len(answer.Text)-100:])
	}
}
