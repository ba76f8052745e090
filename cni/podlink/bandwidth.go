package podlink

import (
	"fmt"
	"math"
	"strings"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/names"
)

// shapeName is the name of the device that belongs to a pod's link.
func shapeName(link string) string {
	return names.ShapingLink + strings.TrimPrefix(link, names.PodLink)
}

// isShapeName tells whether a name can be one that shapeName made.
func isShapeName(name string) bool {
	digits, ok := strings.CutPrefix(name, names.ShapingLink)
	return ok && cni.IsInterfaceName(names.PodLink+digits)
}

const bitsPerByte = 8

// shaper is a token bucket (tc-tbf(8)) that limits what leaves by a device. What is too much waits,
// and what can't wait is dropped.
type shaper struct {
	link  string
	rate  uint64 // bytes per second
	burst uint32 // bytes
	limit uint32 // bytes that may wait
}

func (s shaper) key() string    { return s.link }
func (s shaper) device() string { return s.link }
func (s shaper) remove() string { return fmt.Sprintf("tc qdisc del dev %s root", s.link) }
func (s shaper) add() string {
	return fmt.Sprintf("tc qdisc replace dev %s root tbf rate %dbps burst %db limit %db", s.link,
		s.rate, s.burst, s.limit)
}

// redirect sends what comes in by a pod's link through its shaping device. It comes back as if
// nothing had been, so rules about the pod's link hold.
type redirect struct {
	link, to  string
	different string // as in hostAddress
}

func (r redirect) key() string    { return r.link }
func (r redirect) device() string { return r.link }
func (r redirect) remove() string { return fmt.Sprintf("tc qdisc del dev %s ingress", r.link) }
func (r redirect) add() string {
	return fmt.Sprintf("tc qdisc add dev %s ingress\ntc filter add dev %s ingress protocol all pref 1 u32 match u32 0 0 action mirred egress redirect dev %s%s",
		r.link, r.link, r.to, different(r.different))
}

// newShaper is the bucket for a rate and burst in bits. The burst is never less than one packet,
// which would then never pass. At most 50 ms of traffic wait, but always as much as a sender hands
// over at once.
func newShaper(link string, rateBits, burstBits uint64, mtu int) shaper {
	const (
		linkHeader = 18 // bytes of Ethernet with a VLAN tag
		perSecond  = 20 // 50 ms
		atOnce     = 128 << 10
	)
	rate := rateBits / bitsPerByte
	return shaper{
		link:  link,
		rate:  rate,
		burst: toUint32(max(burstBits/bitsPerByte, uint64(mtu+linkHeader))), //nolint:gosec // an MTU is positive
		limit: toUint32(max(rate/perSecond, atOnce)),
	}
}

func toUint32(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) } //nolint:gosec // just cut

// addShaping adds what holds a pod to its bandwidth. What the kernel can't do is left out: ADD
// refused it.
func (s *hostState) addShaping(a cni.Attachment, mtu int) {
	if a.Bandwidth.Validate() != nil {
		return
	}
	if a.Bandwidth.IngressRate > 0 {
		s.shapers = append(s.shapers, newShaper(a.Interface, a.Bandwidth.IngressRate,
			a.Bandwidth.IngressBurst, mtu))
	}
	if a.Bandwidth.EgressRate > 0 {
		name := shapeName(a.Interface)
		s.links = append(s.links, hostLink{name: name, isIFB: true, up: true})
		s.shapers = append(s.shapers, newShaper(name, a.Bandwidth.EgressRate,
			a.Bandwidth.EgressBurst, mtu))
		s.redirects = append(s.redirects, redirect{link: a.Interface, to: name})
	}
}
