package podlink

import (
	"errors"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/link"
)

// Put puts a token bucket at the root of a device. The burst is sent in bytes; the library sends it
// as a time, of which what is longer than 4 s doesn't fit.
func (s shaper) Put(k *link.Kernel, _ []link.Item) error {
	const burstAttribute = 6 // TCA_TBF_BURST
	index, err := k.Index(s.link)
	if err != nil {
		return err
	}
	request := k.Request(unix.RTM_NEWQDISC,
		unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	request.AddData(&nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(index),
		Parent: netlink.HANDLE_ROOT, //nolint:gosec // an index is one
	})
	request.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("tbf")))
	parameters := nl.TcTbfQopt{Limit: s.limit}
	parameters.Rate.Rate = toUint32(s.rate)
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_TBF_PARMS, parameters.Serialize())
	options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(s.rate))
	options.AddRtAttr(burstAttribute, nl.Uint32Attr(s.burst))
	request.AddData(options)
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// Drop does nothing: shapers are compared only where they should be.
func (s shaper) Drop(*link.Kernel) error { return nil }

// Put puts the one filter in the place of all that come in by a link.
func (r redirect) Put(k *link.Kernel, _ []link.Item) error {
	index, err := k.Index(r.link)
	if err != nil {
		return err
	}
	to, err := k.Index(r.to)
	if err != nil {
		return err
	}
	if err := r.Drop(k); err != nil && !link.IsGone(err) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := k.QdiscAdd(ingressOf(index)); err != nil {
		return err
	}
	return k.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: ingressHandle, Priority: 1,
			Protocol: unix.ETH_P_ALL},
		Actions: []netlink.Action{netlink.NewMirredAction(to)},
	})
}

// Drop removes all filters of what comes in by the link.
func (r redirect) Drop(k *link.Kernel) error {
	index, err := k.Index(r.link)
	if err != nil {
		return err
	}
	return k.QdiscDel(ingressOf(index))
}

func ingressOf(index int) *netlink.Ingress {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: ingressHandle, Parent: netlink.HANDLE_INGRESS,
	}}
}
