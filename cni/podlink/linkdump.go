package podlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/attribute"
)

// podLink is a link as it was found.
type podLink struct {
	hostLink
	index      int
	hasCarrier bool
	conf4      map[string]int32 // the sysctls that we know, by name; nil: without that family
	conf6      map[string]int32
}

func (l podLink) conf(family string) map[string]int32 {
	if family == family4 {
		return l.conf4
	}
	return l.conf6
}

// settings is the values that a link has of these sysctls.
func (l podLink) settings(of []linkSysctl) []linkSysctl {
	now := slices.Clone(of)
	for i, setting := range now {
		now[i].value = l.conf(setting.family)[setting.name]
	}
	return now
}

// podLinksHere is the links of pods and their shaping devices, by name. Their sysctls are in the
// same answer of the kernel, so that looking at them costs no file each.
func podLinksHere() (map[string]podLink, error) {
	return wholeDump("links", func() (map[string]podLink, error) {
		request := linkRequest(unix.NLM_F_DUMP)
		links := map[string]podLink{}
		err := request.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, func(m []byte) bool {
			if link, ok := parsePodLink(m); ok {
				links[link.name] = link
			}
			return true
		})
		return links, err
	})
}

func linkRequest(flags int) *nl.NetlinkRequest {
	const skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, flags)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	return request
}

// linkHere is the pod's link of that name. Where there is none its error is errNoLink.
func linkHere(name string) (podLink, error) {
	request := linkRequest(0)
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, unix.ENODEV) {
		return podLink{}, fmt.Errorf("%w %s", errNoLink, name)
	}
	if err != nil {
		return podLink{}, fmt.Errorf("looking for link %s: %w", name, err)
	}
	for _, m := range messages {
		if link, ok := parsePodLink(m); ok && link.name == name {
			return link, nil
		}
	}
	return podLink{}, fmt.Errorf("%w %s of a pod", errNoLink, name)
}

var errNoLink = errors.New("there is no link")

// parsePodLink reads an RTM_NEWLINK message: struct ifinfomsg and attributes. Other links than
// pods' and their shaping devices are not ok.
func parsePodLink(m []byte) (link podLink, ok bool) {
	const indexAt, flagsAt = 4, 8
	if len(m) < unix.SizeofIfInfomsg {
		return podLink{}, false
	}
	link.index = int(binary.NativeEndian.Uint32(m[indexAt:]))
	flags := binary.NativeEndian.Uint32(m[flagsAt:])
	link.up, link.noARP = flags&unix.IFF_UP != 0, flags&unix.IFF_NOARP != 0
	link.hasCarrier = flags&unix.IFF_RUNNING != 0
	for kind, value := range attribute.All(m[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			link.name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			copy(link.mac[:], value)
		case unix.IFLA_MTU:
			link.mtu = int(number(value))
		case unix.IFLA_IFALIAS:
			link.alias = unix.ByteSliceToString(value)
		case unix.IFLA_LINKINFO:
			for kind, value := range attribute.All(value) {
				if kind == unix.IFLA_INFO_KIND {
					link.isIFB = unix.ByteSliceToString(value) == "ifb"
				}
			}
		case unix.IFLA_AF_SPEC:
			link.parseSysctls(value)
		}
	}
	return link, cni.IsInterfaceName(link.name) || isShapeName(link.name)
}

// parseSysctls reads the settings of each family, which are numbered in linux/ip.h and
// linux/ipv6.h.
func (l *podLink) parseSysctls(spec []byte) {
	const (
		inetConf, inet6Conf, inet6AddrGenMode = 1, 2, 8
		forwarding, routeLocalnet             = 1, 26 // numbered from 1
		acceptRA, disableIPv6, acceptDAD      = 3, 26, 27
	)
	for family, value := range attribute.All(spec) {
		for kind, value := range attribute.All(value) {
			switch {
			case family == unix.AF_INET && kind == inetConf:
				l.conf4 = map[string]int32{
					"forwarding":     setting(value, forwarding-1),
					"route_localnet": setting(value, routeLocalnet-1),
				}
			case family == unix.AF_INET6 && kind == inet6Conf:
				l.conf6 = map[string]int32{
					"accept_ra":    setting(value, acceptRA),
					"disable_ipv6": setting(value, disableIPv6),
					"accept_dad":   setting(value, acceptDAD),
				}
			// comes after the others
			case family == unix.AF_INET6 && kind == inet6AddrGenMode && l.conf6 != nil &&
				len(value) > 0:
				l.conf6["addr_gen_mode"] = int32(value[0])
			}
		}
	}
}

// setting is the one at index i of an array, or what no setting is.
func setting(array []byte, i int) int32 {
	const size, none = 4, -1 << 31
	if len(array) < (i+1)*size {
		return none
	}
	return int32(binary.NativeEndian.Uint32(array[i*size:])) //nolint:gosec // as the kernel means it
}

func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}
