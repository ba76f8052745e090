package podlink

import (
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// shaping is the shapers and redirects that are where the desired ones should be.
func (s sight) shaping(desired link.State) (link.State, error) {
	shapers, redirects := link.Of[shaper](desired), link.Of[redirect](desired)
	if len(shapers) == 0 {
		return nil, nil
	}
	all, err := link.Whole("queueing disciplines", func() ([]netlink.Qdisc, error) {
		return s.kernel.QdiscList(nil)
	})
	if err != nil {
		return nil, err
	}
	var actual link.State
	for _, q := range all {
		tbf, isTBF := q.(*netlink.Tbf)
		if !isTBF || q.Attrs().Parent != netlink.HANDLE_ROOT {
			continue
		}
		i := slices.IndexFunc(shapers, func(want shaper) bool {
			return s.kernel.Links()[want.link].Index == q.Attrs().LinkIndex
		})
		if i >= 0 {
			actual = append(actual, shaperOf(shapers[i], tbf))
		}
	}
	for _, want := range redirects {
		index := s.kernel.Links()[want.link].Index
		if !slices.ContainsFunc(all, func(q netlink.Qdisc) bool {
			return q.Attrs().LinkIndex == index &&
				q.Attrs().Parent == netlink.HANDLE_INGRESS && q.Type() == "ingress"
		}) {
			continue
		}
		filters, err := link.Whole("filters", func() ([]netlink.Filter, error) {
			return s.listFilters(index)
		})
		if err != nil {
			return nil, err
		}
		if to, found := s.kernel.Links()[want.to]; !found || !isRedirect(filters, to.Index) {
			want.different = "other filters"
		}
		actual = append(actual, want)
	}
	return actual, nil
}

// ingressHandle is how filters name the qdisc whose parent is netlink.HANDLE_INGRESS.
var ingressHandle = netlink.MakeHandle(0xffff, 0)

func (s sight) listFilters(index int) ([]netlink.Filter, error) {
	on := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	return s.kernel.FilterList(on, ingressHandle)
}

// isRedirect tells whether filters are the one that we make: all to the link of that index.
func isRedirect(filters []netlink.Filter, index int) bool {
	var found int
	for _, f := range filters {
		u32, isU32 := f.(*netlink.U32)
		if !isU32 {
			return false
		}
		if u32.Sel == nil || len(u32.Actions) == 0 {
			continue // the kernel's own entries for the hash table
		}
		mirred, isMirred := u32.Actions[0].(*netlink.MirredAction)
		isAll := len(u32.Sel.Keys) == 1 && u32.Sel.Keys[0].Mask == 0
		if !isMirred || !isAll || len(u32.Actions) != 1 || mirred.Ifindex != index ||
			mirred.MirredAction != netlink.TCA_EGRESS_REDIR ||
			u32.Attrs().Protocol != unix.ETH_P_ALL {
			return false
		}
		found++
	}
	return found == 1
}

// shaperOf is what is there in the place of the wanted one. The kernel tells the burst as the time
// that it takes, in ticks of 64 ns of which the lowest 32 bits remain, so ours is recognized rather
// than read.
func shaperOf(want shaper, tbf *netlink.Tbf) shaper {
	got := shaper{link: want.link, rate: tbf.Rate, limit: tbf.Limit}
	const perSecond = 1e9 / 64
	ticks := uint64(float64(want.burst) / float64(want.rate) * perSecond)
	off := tbf.Buffer - uint32(ticks) //nolint:gosec // the lowest 32 bits
	tolerance := uint32(min(ticks>>24, 1<<28)) + 4
	if off+tolerance <= 2*tolerance && tbf.Peakrate == 0 { //nolint:gosec // small
		got.burst = want.burst
	}
	return got
}
