package answers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

// mostConnections bounds the connections that an answer lists.
const mostConnections = 200

// WhyLiveHandler answers GET with the query parameters src and dst as those of WhyHandler: the
// connections between them that this node tracks, whichever end opened them; for each its state,
// what
// policies say of it now, and whether it is being cut. With port, it lists those that src
// opened to
// that port of dst; dst may be the address of a Service, and port the Service's. list
// returns the
// connections that have one of some addresses as an end, as Connections does.
func WhyLiveHandler(e *enforcer.Enforcer, list func(of []netip.Addr) ([]enforcer.Connection, error),
	log logr.Logger) http.Handler {
	a := asker{enforcer: e}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		ends, wanted, err := a.liveQuestion(q.Get("src"), q.Get("dst"), q.Get("port"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		own, err := enforcer.OwnAddresses()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		all, err := list(ends)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(a.explainLive(all, wanted, own)); err != nil {
			log.V(1).Info("Answering a question failed", "reason", err.Error())
		}
	})
}

// liveQuestion reads a question about connections: each connection has one of ends as an end, and
// wanted picks those that were asked for.
func (a asker) liveQuestion(src, dst, port string) (ends []netip.Addr,
	wanted func(enforcer.Connection) bool, err error) {
	sources, err := a.resolve("source", src)
	if err != nil {
		return nil, nil, err
	}
	destinations, err := a.resolve("destination", dst)
	if err != nil {
		return nil, nil, err
	}
	if port != "" {
		if _, _, err := parsePort(port, true); err != nil {
			return nil, nil, err
		}
	}
	return slices.Concat(sources, destinations), func(c enforcer.Connection) bool {
		opened := func(by, to []netip.Addr) bool {
			return slices.Contains(by, c.Source.Addr()) &&
				(slices.Contains(to, c.ReplySource.Addr()) ||
					slices.Contains(to, c.Destination.Addr()))
		}
		if port == "" {
			return opened(sources, destinations) || opened(destinations, sources)
		}
		protocol, number, _ := parsePort(port, c.Source.Addr().Is4()) // it could be read above
		return opened(sources, destinations) && c.Protocol == protocol &&
			(number == 0 || number == c.ReplySource.Port() || number == c.Destination.Port())
	}, nil
}

// explainLive judges connections as their first packets were: by the end that opened and the end
// that answers, behind any Service. own are this node's addresses.
func (a asker) explainLive(all []enforcer.Connection, wanted func(enforcer.Connection) bool,
	own []netip.Addr) WhyAnswer {
	out := WhyAnswer{Allowed: true}
	var texts []string
	more := 0
	for _, c := range all {
		if !wanted(c) {
			continue
		}
		if len(texts) == mostConnections {
			more++
			continue
		}
		answer := a.enforcer.Explain(policy.Flow{Source: c.Source.Addr(),
			Destination: c.ReplySource.Addr(), Protocol: c.Protocol,
			Port: c.ReplySource.Port()}, own...)
		out.Allowed = out.Allowed && answer.Allowed
		texts = append(texts, liveText(c, answer))
	}
	slices.Sort(texts)
	switch {
	case len(texts) == 0:
		texts = []string{"this node tracks no such connection"}
	case more > 0:
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	out.Text = strings.Join(texts, "\n")
	return out
}

func liveText(c enforcer.Connection, a cluster.Answer) string {
	text := fmt.Sprintf("%s %s -> %s", policy.ProtocolName(c.Protocol), endText(c.Source),
		endText(c.ReplySource))
	if c.Destination != c.ReplySource {
		text += " by way of " + endText(c.Destination)
	}
	text += ", " + c.State.String()
	switch {
	case c.Cut:
		text += ", being cut"
	case !a.Allowed && c.State.GoesOn():
		text += ", goes on"
	}
	return text + ": " + a.String()
}

func endText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
