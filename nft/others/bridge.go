package others

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
)

// BridgeBypass is a bridge whose pods talk to each other without passing chains on the hook
// forward.
type BridgeBypass struct {
	Bridge   string
	Family   string // "ip" or "ip6"
	NoModule bool   // br_netfilter isn't loaded
}

// sysctl is the sysctl that makes bridged packets of the family pass the hook, in the dotted form.
func (b BridgeBypass) sysctl() string { return "net.bridge." + bridgeSwitch(b.Family) }

// String says what is wrong and what to type.
func (b BridgeBypass) String() string {
	if b.NoModule {
		return fmt.Sprintf("bridge %s: the kernel module br_netfilter isn't loaded: %s between "+
			"pods of this node isn't seen; "+
			"run `modprobe br_netfilter` and `sysctl -w %s=1`", b.Bridge, traffic(b.Family),
			b.sysctl())
	}
	return fmt.Sprintf(
		"bridge %s: %s is 0: %s between pods of this node isn't seen; run `sysctl -w %[2]s=1`",
		b.Bridge, b.sysctl(), traffic(b.Family))
}

func traffic(family string) string {
	if family == familyIP6 {
		return "IPv6 traffic"
	}
	return "IPv4 traffic"
}

func bridgeSwitch(family string) string {
	if family == familyIP6 {
		return "bridge-nf-call-ip6tables"
	}
	return "bridge-nf-call-iptables"
}

// BridgesBypass looks at the bridges that carry pods, which are those with an address in one of
// podCIDRs (the node's own) or a route within one, and returns those whose bridged packets don't
// pass the hook forward, for each family of podCIDRs. Neither the node's switch nor the bridge's
// own is on then. sysctlDir is the node's /proc/sys/net; empty means that of the kernel. Only the
// thread's network namespace counts.
func BridgesBypass(podCIDRs []netip.Prefix, sysctlDir string) ([]BridgeBypass, error) {
	if sysctlDir == "" {
		sysctlDir = defaultSysctlDir
	}
	handle, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	defer handle.Close()
	all, err := handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	var found []BridgeBypass
	for _, family := range []string{familyIP, familyIP6} {
		cidrs := ofFamily(podCIDRs, family)
		on, module, err := bridgeCalls(sysctlDir, family)
		if err != nil {
			return nil, err
		}
		if on || len(cidrs) == 0 {
			continue
		}
		for _, link := range all {
			bypass := BridgeBypass{Bridge: link.Attrs().Name, Family: family, NoModule: !module}
			if link.Type() != "bridge" {
				continue
			}
			seen, err := ownSwitch(link, family)
			if err != nil {
				return nil, err
			}
			carries, err := carriesPods(handle, link, cidrs)
			if err != nil {
				return nil, err
			}
			if carries && (!seen || !module) {
				found = append(found, bypass)
			}
		}
	}
	return found, nil
}

// bridgeCalls reads the namespace's switch for all bridges. Without the module it doesn't exist.
func bridgeCalls(sysctlDir, family string) (on, module bool, err error) {
	path := filepath.Join(sysctlDir, "bridge", bridgeSwitch(family))
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	on, err = readSwitch(path)
	return on, true, err
}

// carriesPods reports whether a link has an address in, or a route within, one of the CIDRs, all of
// one family.
func carriesPods(handle netlinksafe.Handle, link netlink.Link, cidrs []netip.Prefix) (bool, error) {
	family := netlink.FAMILY_V4
	if cidrs[0].Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	addrs, err := netlinksafe.AddrList(link, family)
	if err != nil {
		return false, fmt.Errorf("listing addresses of %s: %w", link.Attrs().Name, err)
	}
	routes, err := handle.RouteList(link, family)
	if err != nil {
		return false, fmt.Errorf("listing routes over %s: %w", link.Attrs().Name, err)
	}
	var prefixes []netip.Prefix
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			prefixes = append(prefixes, host(addr.Unmap()))
		}
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p, ok := netipx.FromStdIPNet(r.Dst); ok {
			prefixes = append(prefixes, p)
		}
	}
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool {
		return slices.ContainsFunc(cidrs, func(c netip.Prefix) bool {
			return p.Bits() >= c.Bits() && c.Contains(p.Addr())
		})
	}), nil
}

// ownSwitch reads a bridge's own nf_call_iptables or nf_call_ip6tables, which the netlink library
// doesn't.
func ownSwitch(link netlink.Link, family string) (on bool, err error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(link.Attrs().Index)
	request.AddData(message)
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return false, fmt.Errorf("reading bridge %s: %w", link.Attrs().Name, err)
	}
	kind := uint16(unix.IFLA_BR_NF_CALL_IPTABLES)
	if family == familyIP6 {
		kind = unix.IFLA_BR_NF_CALL_IP6TABLES
	}
	for _, answer := range answers {
		value := nested(answer[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO,
			unix.IFLA_INFO_DATA, kind)
		if len(value) == 1 && value[0] != 0 {
			return true, nil
		}
	}
	return false, nil
}

// nested follows nested attributes down to a value; nil if there is none.
func nested(data []byte, path ...uint16) []byte {
	for _, kind := range path {
		inner := data
		data = nil
		for k, value := range attribute.All(inner) {
			if k == kind {
				data = value
			}
		}
	}
	return data
}
