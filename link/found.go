package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// Found is a link as it was found.
type Found struct {
	Name     string
	Index    int
	Type     string // such as vxlan; empty for hardware
	MAC      MAC
	MTU      int // bytes
	Up       bool
	Carrier  bool // packets can pass
	NoARP    bool
	Loopback bool
	Alias    string

	// the values of its sysctls, as the kernel numbers them; nil: without that family
	Conf4, Conf6 []byte
	addrGenMode  int32 // IPv6's
}

// Look reads the links of the network namespace.
func (k *Kernel) Look() error {
	found, err := Whole("links", func() (all []Found, err error) {
		err = k.linkRequest(unix.NLM_F_DUMP).
			ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWLINK, func(m []byte) bool {
				if f, ok := parseLink(m); ok {
					all = append(all, f)
				}
				return true
			})
		return all, err
	})
	if err != nil {
		return err
	}
	k.links, k.names = make(map[string]Found, len(found)), make(map[int]string, len(found))
	for _, f := range found {
		k.links[f.Name], k.names[f.Index] = f, f.Name
	}
	return nil
}

// LookAt reads one link. Where there is none its error is ErrNoLink.
func (k *Kernel) LookAt(name string) (Found, error) {
	request := k.linkRequest(0)
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, unix.ENODEV) {
		return Found{}, fmt.Errorf("%w %s", ErrNoLink, name)
	}
	if err != nil {
		return Found{}, fmt.Errorf("looking for link %s: %w", name, err)
	}
	for _, m := range messages {
		if f, ok := parseLink(m); ok && f.Name == name {
			k.links[name], k.names[f.Index] = f, name
			return f, nil
		}
	}
	return Found{}, fmt.Errorf("%w %s", ErrNoLink, name)
}

func (k *Kernel) linkRequest(flags int) *nl.NetlinkRequest {
	const skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	request := k.Request(unix.RTM_GETLINK, flags)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	return request
}

// parseLink reads an RTM_NEWLINK message: struct ifinfomsg and attributes.
func parseLink(m []byte) (f Found, ok bool) {
	const indexAt, flagsAt = 4, 8
	if len(m) < unix.SizeofIfInfomsg {
		return Found{}, false
	}
	f.Index = int(binary.NativeEndian.Uint32(m[indexAt:]))
	flags := binary.NativeEndian.Uint32(m[flagsAt:])
	f.Up, f.NoARP = flags&unix.IFF_UP != 0, flags&unix.IFF_NOARP != 0
	f.Carrier, f.Loopback = flags&unix.IFF_RUNNING != 0, flags&unix.IFF_LOOPBACK != 0
	for kind, value := range attribute.All(m[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			f.Name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			copy(f.MAC[:], value)
		case unix.IFLA_MTU:
			f.MTU = int(number(value))
		case unix.IFLA_IFALIAS:
			f.Alias = unix.ByteSliceToString(value)
		case unix.IFLA_LINKINFO:
			f.Type = unix.ByteSliceToString(find(value, unix.IFLA_INFO_KIND))
		case unix.IFLA_AF_SPEC:
			f.parseSettings(value)
		}
	}
	return f, f.Name != ""
}

// parseSettings reads the sysctls of each family, which come with the link.
func (f *Found) parseSettings(spec []byte) {
	const inetConf, inet6Conf, inet6AddrGenMode = 1, 2, 8 // linux/if_link.h
	f.Conf4 = slices.Clone(find(find(spec, unix.AF_INET), inetConf))
	six := find(spec, unix.AF_INET6)
	f.Conf6 = slices.Clone(find(six, inet6Conf))
	if mode := find(six, inet6AddrGenMode); len(mode) > 0 {
		f.addrGenMode = int32(mode[0])
	}
}

// find is the value of an attribute, or nil.
func find(attributes []byte, wanted uint16) []byte {
	for kind, value := range attribute.All(attributes) {
		if kind == wanted {
			return value
		}
	}
	return nil
}

func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}
