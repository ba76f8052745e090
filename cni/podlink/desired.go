package podlink

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/cni"
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
	a cni.Attachment, link *podLink, macs map[macAddr]string, now time.Time, freshFor time.Duration,
) phase {
	if t.lacking.IsZero() {
		t.lacking = now
	}
	own := macAddr(a.HostMAC())
	switch {
	case link == nil, link.index != t.index && link.mac != own,
		macs[link.mac] != "" && macs[link.mac] != a.ID():
		if t.index != 0 {
			t.index, t.lacking, t.clean = 0, now, false
		}
		if link == nil {
			return absent
		}
		return foreign
	case link.index != t.index:
		*t = tracker{index: link.index, since: now, lacking: now, seen: true}
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
		return fmt.Sprintf("link %s of pod %s is gone, and the pod's end with it: only a new pod helps", a.Interface, pod)
	}
	return fmt.Sprintf("link %s has not the MAC %s of pod %s: it is left alone", a.Interface,
		a.HostMAC(), pod)
}

// desiredHost is the state that should be, given how far each attachment's link has come, by ID,
// the links that are there, by name, and the addresses that the node has.
func desiredHost(
	in hostInputs, phases map[string]phase, links map[string]podLink, local map[netip.Addr]bool,
) hostState {
	var s hostState
	for _, a := range in.attachments {
		p := phases[a.ID()]
		if p < fresh {
			continue
		}
		link := links[a.Interface]
		s.addShaping(a, link.mtu)
		if p == settled {
			s.add(WiringOf(a, in.nodeAddrs).hostEnd(link, func(addr netip.Addr) bool {
				return local[addr]
			}))
		}
	}
	for _, cidr := range in.podCIDRs {
		s.routes = append(s.routes, hostRoute{to: cidr.Masked(), metric: lastMetric})
	}
	return s
}

// keepUnknown has the desired state be as it is where it follows from what isn't known: an agent
// that waits for the API server leaves the routes that the last one made.
func (in hostInputs) keepUnknown(desired *hostState, actual hostState) {
	for _, is := range actual.routes {
		i := slices.IndexFunc(desired.routes, func(r hostRoute) bool { return r.key() == is.key() })
		isUnreachable := is.link == "" && is.metric == lastMetric && is.different == ""
		switch {
		case i < 0 && isUnreachable && len(in.podCIDRs) == 0:
			desired.routes = append(desired.routes, is)
		case i >= 0 && desired.routes[i].link == is.link && len(in.nodeAddrs) == 0:
			desired.routes[i].src = is.src
		}
	}
}
