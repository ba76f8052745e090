package podlink

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
)

// lastMetric is that of the unreachable routes: whoever has another route to the same prefix means
// it.
const lastMetric = 1 << 30

// hostInputs is what the desired state follows from, apart from what is there.
type hostInputs struct {
	attachments []cni.Attachment
	nodeAddrs   []netip.Addr   // none: not known
	podCIDRs    []netip.Prefix // none: not known
}

// phase is how far a pod's link has come.
type phase uint8

const (
	absent  phase = iota // not made yet, or gone for good
	foreign              // a link of that name is another attachment's
	fresh                // just made: the plugin is at it
	settled              // ours to look after
)

// These are how long to wait before calling a link missing that was there (DEL removes it first),
// and one that never was (an ADD may take that long).
const (
	goneFor     = 5 * time.Second
	neverComeIn = time.Minute
)

// tracker remembers of one attachment what can't be seen in the kernel.
type tracker struct {
	index   int       // of the link, once it was seen with the attachment's MAC
	since   time.Time // when it was first seen
	lacking time.Time // since when there is none; meaningless while index isn't 0
	seen    bool      // whether there ever was one
	clean   bool      // whether all was as desired after the last pass
}

// observe says how far the attachment's link has come; it is fresh for so long. The tracker is new,
// or was made for the same attachment.
func (t *tracker) observe(
	a cni.Attachment, found *link.Found, macs map[link.MAC]string, now time.Time,
	freshFor time.Duration,
) phase {
	if t.lacking.IsZero() {
		t.lacking = now
	}
	own := link.MAC(a.HostMAC())
	switch {
	case found == nil, found.Index != t.index && found.MAC != own,
		macs[found.MAC] != "" && macs[found.MAC] != a.ID():
		if t.index != 0 {
			t.index, t.lacking, t.clean = 0, now, false
		}
		if found == nil {
			return absent
		}
		return foreign
	case found.Index != t.index:
		*t = tracker{index: found.Index, since: now, lacking: now, seen: true}
	}
	if now.Sub(t.since) < freshFor {
		return fresh
	}
	return settled
}

// problem is what a person should know about an attachment's link, or empty.
func (t *tracker) problem(a cni.Attachment, p phase, now time.Time) string {
	patience := neverComeIn
	if t.seen {
		patience = goneFor
	}
	if p > foreign || now.Sub(t.lacking) < patience {
		return ""
	}
	pod := cni.PodLabel(a.PodNamespace, a.PodName)
	if p == absent {
		return fmt.Sprintf(
			"link %s of pod %s is gone, and the pod's end with it: only a new pod helps",
			a.Interface, pod)
	}
	return fmt.Sprintf("link %s has not the MAC %s of pod %s: it is left alone", a.Interface,
		a.HostMAC(), pod)
}

// desiredHost is the state that should be, given how far each attachment's link has come, by ID,
// the links that are there, by name, and whether the node has an address.
func desiredHost(
	in hostInputs, phases map[string]phase, links map[string]link.Found,
	isLocal func(netip.Addr) bool,
) link.State {
	var s link.State
	for _, a := range in.attachments {
		p := phases[a.ID()]
		if p < fresh {
			continue
		}
		found := links[a.Interface]
		s = append(s, shapingOf(a, found.MTU)...)
		if p == settled {
			s = append(s, WiringOf(a, in.nodeAddrs).hostEnd(found, isLocal)...)
		}
	}
	for _, cidr := range in.podCIDRs {
		s = append(s, unreachable(cidr))
	}
	return s
}

// unreachable is the route for the addresses of the node's podCIDR that no pod has: packets to them
// would go round in circles by way of the default route, and their senders would wait.
func unreachable(cidr netip.Prefix) link.Route {
	return link.Route{To: cidr.Masked(), Metric: lastMetric, Protocol: RouteProtocol}
}

// keepUnknown is the desired state, but as it is where it follows from what isn't known: an agent
// that waits for the API server leaves the routes that the last one made.
func (in hostInputs) keepUnknown(desired, actual link.State) link.State {
	wanted := map[string]int{} // where routes are, by key
	for i, item := range desired {
		if route, isRoute := item.(link.Route); isRoute {
			wanted[route.Key()] = i
		}
	}
	for _, is := range link.Of[link.Route](actual) {
		i, isWanted := wanted[is.Key()]
		switch {
		case !isWanted && is == unreachable(is.To) && len(in.podCIDRs) == 0:
			desired = append(desired, is)
		case isWanted && desired[i].Device() == is.Link && len(in.nodeAddrs) == 0:
			route := desired[i].(link.Route)
			route.Src = is.Src
			desired[i] = route
		}
	}
	return desired
}
