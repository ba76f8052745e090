package answers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// WhyAnswer is what WhyHandler answers.
type WhyAnswer struct {
	Allowed bool   `json:"allowed"`
	Text    string `json:"text"` // for people
}

// WhyHandler answers GET with the query parameters src, dst (an address, or namespace/name of a
// pod) and port ("80", "80/udp", "icmp"): whether such a new connection is allowed, and why. For
// the address of a Service, which it looks up in api, there is one answer for each pod that may
// answer. For an address of the pod network that no pod has there is none.
func WhyHandler(e *enforcer.Enforcer, api client.Reader, log logr.Logger) http.Handler {
	a := asker{e, api}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		flows, err := a.flows(q.Get("src"), q.Get("dst"), q.Get("port"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		own, err := enforcer.OwnAddresses()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		out := WhyAnswer{Allowed: true}
		var texts []string
		for _, f := range flows {
			text, allowed, err := a.answer(r.Context(), f, own)
			if err != nil {
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
				return
			}
			out.Allowed = out.Allowed && allowed
			texts = append(texts, text)
		}
		out.Text = strings.Join(texts, "\n")
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			log.V(1).Info("Answering a question failed", "reason", err.Error())
		}
	})
}

// asker finds answers to questions.
type asker struct {
	enforcer *enforcer.Enforcer
	api      client.Reader // for Services; may be nil where questions aren't about them
}

// apiPatience bounds how long an answer waits for the API server.
const apiPatience = 5 * time.Second

// answer judges one flow, for people: behind a Service, every flow that the Service can make of it.
func (a asker) answer(ctx context.Context, f policy.Flow,
	own []netip.Addr) (text string, allowed bool, err error) {
	for which, addr := range map[string]netip.Addr{"source": f.Source,
		"destination": f.Destination} {
		if a.whose(addr, own) == cluster.Nobodys {
			return "", false, fmt.Errorf("%s %s: an address of the pod network that no pod has, "+
				"as far as is known here: nothing answers there", which, addr)
		}
	}
	plain := func(f policy.Flow) string {
		answer := a.enforcer.Explain(f, own...)
		allowed = answer.Allowed
		return fmt.Sprintf("%s -> %s %s: %s", f.Source, f.Destination, portText(f), answer)
	}
	if a.whose(f.Destination, own) != cluster.Elsewhere {
		return plain(f), allowed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiPatience)
	defer cancel()
	service, err := serviceAt(ctx, a.api, f.Destination)
	if err != nil {
		return "", false, fmt.Errorf("destination %s: no pod's and no node's address, and "+
			"whether it is a Service's isn't known: %w. If it is, "+
			"ask about the pods behind it (kubectl get endpointslices), at their ports. If it is "+
			"a host's outside:\n%s", f.Destination, err, plain(f))
	}
	if service == nil {
		return plain(f), allowed, nil
	}
	backends, err := backendsOf(ctx, a.api, service, f)
	if err != nil {
		return "", false, fmt.Errorf("destination %s: %w", f.Destination, err)
	}
	if len(backends) == 0 {
		return "", false,
			fmt.Errorf("destination %s: Service %s/%s has no endpoint that answers now",
				f.Destination, service.Namespace, service.Name)
	}
	texts := []string{
		fmt.Sprintf("%s is Service %s/%s: policies judge who answers, at its own port",
			f.Destination, service.Namespace, service.Name)}
	all := true
	for _, b := range backends {
		f.Destination, f.Port = b.Addr(), b.Port()
		texts = append(texts, plain(f))
		all = all && allowed
	}
	return strings.Join(texts, "\n"), all, nil
}

// whose describes an address's owner; own are this node's addresses.
func (a asker) whose(addr netip.Addr, own []netip.Addr) cluster.Whose {
	if w := a.enforcer.Whose(addr); w == cluster.APods || !slices.Contains(own, addr) {
		return w
	}
	return cluster.ANodes
}

func portText(f policy.Flow) string {
	if f.Port == 0 {
		return policy.ProtocolName(f.Protocol)
	}
	return fmt.Sprintf("%s %d", policy.ProtocolName(f.Protocol), f.Port)
}

// flows reads a question: one flow for each family that both ends have.
func (a asker) flows(src, dst, port string) ([]policy.Flow, error) {
	sources, err := a.resolve("source", src)
	if err != nil {
		return nil, err
	}
	destinations, err := a.resolve("destination", dst)
	if err != nil {
		return nil, err
	}
	var out []policy.Flow
	for _, s := range sources {
		for _, d := range destinations {
			if s.Is4() != d.Is4() {
				continue
			}
			protocol, number, err := parsePort(port, s.Is4())
			if err != nil {
				return nil, err
			}
			out = append(out,
				policy.Flow{Source: s, Destination: d, Protocol: protocol, Port: number})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s and %s have no address of the same family", src, dst)
	}
	return out, nil
}

// resolve reads one end: an address, or a pod by namespace and name.
func (a asker) resolve(which, s string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	namespace, name, ok := strings.Cut(s, "/")
	if !ok {
		return nil, fmt.Errorf("%s %q: expected an address, or a pod as namespace/name", which, s)
	}
	addresses := a.enforcer.PodAddresses(namespace, name)
	if len(addresses) > 0 {
		return addresses, nil
	}
	if said, node := a.enforcer.PodClaims(namespace, name); len(said) > 0 {
		return nil, fmt.Errorf("%s %q: its status says %s, which can't be an address of a pod of "+
			"node %q, or is another pod's", which, s, joined(said), node)
	}
	return nil, fmt.Errorf("%s %q: no such pod, or it has no address yet", which, s)
}

// joined lists addresses for people.
func joined(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, " and ")
}

// parsePort reads "80", "80/tcp", "53/udp", "80/sctp" or "icmp".
func parsePort(s string, is4 bool) (protocol uint8, port uint16, err error) {
	if strings.EqualFold(s, "icmp") {
		if is4 {
			return policy.ProtocolICMP, 0, nil
		}
		return policy.ProtocolICMPv6, 0, nil
	}
	number, name, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return 0, 0, fmt.Errorf("port %q: expected a number from 1 to 65535, with /tcp, /udp or "+
			"/sctp behind it if not TCP, or icmp", s)
	}
	switch strings.ToLower(name) {
	case "", "tcp":
		return policy.ProtocolTCP, uint16(n), nil
	case "udp":
		return policy.ProtocolUDP, uint16(n), nil
	case "sctp":
		return policy.ProtocolSCTP, uint16(n), nil
	}
	return 0, 0, fmt.Errorf("port %q: protocol %q: expected tcp, udp or sctp", s, name)
}
