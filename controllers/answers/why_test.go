package answers

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/go-logr/logr/testr"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

func askWhy(t *testing.T, e *enforcer.Enforcer, src, dst, port string) (status int, body string) {
	t.Helper()
	return askWhyOf(t, e, serviceObjects{}, src, dst, port)
}

// askWhyOf asks with the Services of an API server.
func askWhyOf(t *testing.T, e *enforcer.Enforcer, api client.Reader,
	src, dst, port string) (status int, body string) {
	t.Helper()
	query := url.Values{"src": {src}, "dst": {dst}, "port": {port}}
	w := httptest.NewRecorder()
	WhyHandler(e, api, testr.New(t)).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/why?"+query.Encode(), nil))
	return w.Code, w.Body.String()
}

func TestWhy(t *testing.T) {
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
		liar := policy.PodFrom(cases.Pods()[0])
		liar.ID.Name, liar.ID.UID, liar.Addresses = "liar", "liar",
			[]netip.Addr{netip.MustParseAddr("203.0.113.7")}
		c.SetPod(liar)
		c.SetPolicy(policy.Parse(np))
	})
	for _, tc := range []struct {
		src, dst, port string
		allowed        bool
		text           string
	}{
		{"dev/web", "dev/db", "80", true, "allowed by dev/p ingress rule 0"},
		{"dev/web", "dev/db", "81/tcp", false, "the port doesn't"},
		{"dev/web", "dev/db", "80/udp", false, "isolated by dev/p"},
		{"192.0.2.1", "dev/db", "80/SCTP", false, "SCTP 80: denied"},
		{cases.Addr("dev/db", 6), "dev/web", "icmp", true, "ICMPv6: allowed"},
	} {
		status, body := askWhy(t, e, tc.src, tc.dst, tc.port)
		var answer WhyAnswer
		if err := json.Unmarshal([]byte(body), &answer); status != http.StatusOK || err != nil {
			t.Errorf("%+v: status %d: %s", tc, status, body)
			continue
		}
		if answer.Allowed != tc.allowed || !strings.Contains(answer.Text, tc.text) {
			t.Errorf("%+v: %+v", tc, answer)
		}
	}
	for _, tc := range []struct{ src, dst, port, want string }{
		{"nobody", "dev/db", "80", `source "nobody": expected an address, or a pod`},
		{"dev/web", "dev/none", "80", `destination "dev/none": no such pod`},
		{"dev/liar", "dev/db", "80",
			`source "dev/liar": its status says 203.0.113.7, ` +
				"which can't be an address of a pod of node"},
		{"dev/web", "dev/db", "0", `port "0": expected a number from 1 to 65535`},
		{"dev/web", "dev/db", "80/dccp", `protocol "dccp": expected tcp, udp or sctp`},
		{"dev/web", "dev/db", "", `port "": expected a number`},
		{"192.0.2.1", "2001:db8::1", "80", "no address of the same family"},
	} {
		if status, body := askWhy(t, e, tc.src, tc.dst, tc.port); status != http.StatusBadRequest ||
			!strings.Contains(body, tc.want) {
			t.Errorf("%+v: status %d: %s", tc, status, body)
		}
	}
}
