package podlink

import (
	"fmt"
	"math"
	"strings"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/link"
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

// Kind and the following methods are those of a link.Item.
func (s shaper) Kind() link.Kind { return link.KindQueue }
func (s shaper) Key() string     { return s.link }
func (s shaper) Device() string  { return s.link }
func (s shaper) Remove() string  { return fmt.Sprintf("tc qdisc del dev %s root", s.link) }
func (s shaper) Add() string {
	return fmt.Sprintf("tc qdisc replace dev %s root tbf rate %dbps burst %db limit %db", s.link,
		s.rate, s.burst, s.limit)
}

// redirect sends what comes in by a pod's link through its shaping device. It comes back as if
// nothing had been, so rules about the pod's link hold.
type redirect struct {
	link, to  string
	different string // as in link.Address
}

// Kind and the following methods are those of a link.Item.
func (r redirect) Kind() link.Kind { return link.KindFilter }
func (r redirect) Key() string     { return r.link }
func (r redirect) Device() string  { return r.link }
func (r redirect) Remove() string  { return fmt.Sprintf("tc qdisc del dev %s ingress", r.link) }
func (r redirect) Add() string {
	return fmt.Sprintf("tc qdisc add dev %s ingress\ntc filter add dev %s ingress protocol all "+
		"pref 1 u32 match u32 0 0 action mirred egress redirect dev %s%s",
		r.link, r.link, r.to, link.When(r.different != "", " # "+r.different))
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
		link: link,
		rate: rate,
		burst: toUint32(max(burstBits/bitsPerByte,
			uint64(mtu+linkHeader))), //nolint:gosec // an MTU is positive
		limit: toUint32(max(rate/perSecond, atOnce)),
	}
}

func toUint32(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) } //nolint:gosec // just cut

// shapingOf is what holds a pod to its bandwidth. What the kernel can't do is left out: ADD refused
// it.
func shapingOf(a cni.Attachment, mtu int) (s link.State) {
	if a.Bandwidth.Validate() != nil {
		return nil
	}
	if rate := a.Bandwidth.IngressRate; rate > 0 {
		s = append(s, newShaper(a.Interface, rate, a.Bandwidth.IngressBurst, mtu))
	}
	if rate := a.Bandwidth.EgressRate; rate > 0 {
		name := shapeName(a.Interface)
		s = append(s, hostLink{name: name, isIFB: true, up: true},
			newShaper(name, rate, a.Bandwidth.EgressBurst, mtu),
			redirect{link: a.Interface, to: name})
	}
	return s
}
