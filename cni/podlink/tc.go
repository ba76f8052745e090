package podlink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// shapingKernel changes what shapes pods' traffic. It is an interface so that the plugin's program,
// which is copied to every node and started for every pod, has no tc(8) in it.
type shapingKernel interface {
	add(item any) error
	remove(item any) error
}

// trafficControl is the shapingKernel.
type trafficControl struct{ *hostKernel }

func (k trafficControl) add(item any) error {
	switch item := item.(type) {
	case shaper:
		return k.addShaper(item)
	case redirect:
		return k.addRedirect(item)
	default:
		return fmt.Errorf("no such kind of thing: %T", item)
	}
}

func (k trafficControl) remove(item any) error {
	if item, isRedirect := item.(redirect); isRedirect {
		return k.withLink(item.link, k.removeIngress)
	}
	return nil // shapers are compared only where they should be
}

// addShaper puts a token bucket at the root of a device. The burst is sent in bytes; the library
// sends it as a time, of which what is longer than 4 s doesn't fit.
func (k trafficControl) addShaper(s shaper) error {
	const burstAttribute = 6 // TCA_TBF_BURST
	return k.withLink(s.link, func(link netlink.Link) error {
		request := nl.NewNetlinkRequest(unix.RTM_NEWQDISC,
			unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
		request.AddData(&nl.TcMsg{
			Family: nl.FAMILY_ALL, Ifindex: int32(link.Attrs().Index), Parent: netlink.HANDLE_ROOT, //nolint:gosec // an index is one
		})
		request.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("tbf")))
		parameters := nl.TcTbfQopt{Limit: s.limit}
		parameters.Rate.Rate = toUint32(s.rate)
		options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
		options.AddRtAttr(nl.TCA_TBF_PARMS, parameters.Serialize())
		options.AddRtAttr(nl.TCA_TBF_RATE64, nl.Uint64Attr(s.rate))
		options.AddRtAttr(burstAttribute, nl.Uint32Attr(s.burst))
		request.AddData(options)
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// addRedirect puts the one filter in the place of all that come in by a link.
func (k trafficControl) addRedirect(r redirect) error {
	to, found := k.links[r.to]
	if !found {
		return fmt.Errorf("there is no link %s", r.to)
	}
	return k.withLink(r.link, func(link netlink.Link) error {
		if err := k.removeIngress(link); err != nil && !isGone(err) &&
			!errors.Is(err, unix.EINVAL) {
			return err
		}
		qdisc := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: ingressHandle, Parent: netlink.HANDLE_INGRESS,
		}}
		if err := k.QdiscAdd(qdisc); err != nil {
			return err
		}
		return k.FilterAdd(&netlink.U32{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: link.Attrs().Index, Parent: ingressHandle,
				Priority: 1, Protocol: unix.ETH_P_ALL},
			Actions: []netlink.Action{netlink.NewMirredAction(to.index)},
		})
	})
}

func (k trafficControl) removeIngress(link netlink.Link) error {
	return k.QdiscDel(&netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: ingressHandle, Parent: netlink.HANDLE_INGRESS,
	}})
}
