package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/test/needkernel"
)

// IPVS sends connections to from on to to, as kube-proxy in IPVS mode does for a Service with one
// endpoint: from is on kube-ipvs0 unless the node has it, and the kernel masquerades (in IPVS'
// sense, which is a translation of the destination). A host that reaches itself that way is
// masqueraded, as by DNAT. It skips the test where the kernel has no IPVS.
func (n *Node) IPVS(proto Protocol, from, to netip.AddrPort) {
	n.t.Helper()
	for _, module := range []string{"ip_vs", "ip_vs_rr", "dummy"} {
		needkernel.Module(n.t, module)
	}
	needkernel.Program(n.t, "ipvsadm")
	flag := map[Protocol]string{TCP: "-t", UDP: "-u", SCTP: "--sctp-service"}[proto]
	if flag == "" || from.Addr().Is4() != to.Addr().Is4() {
		n.t.Fatalf("no IPVS of %s from %s to %s", proto, from, to)
	}
	if err := n.Do(func() error {
		return errors.Join(n.ipvsAddress(from.Addr()),
			// which kube-proxy sets
			os.WriteFile("/proc/sys/net/ipv4/vs/conntrack", []byte("1"), 0),
			run("ipvsadm", "-A", flag, from.String(), "-s", "rr"),
			run("ipvsadm", "-a", flag, from.String(), "-r", to.String(), "-m"))
	}); err != nil {
		n.t.Fatalf("IPVS of %s: %v", from, err)
	}
	ip := "ip"
	if from.Addr().Is6() {
		ip = "ip6"
	}
	n.NftInput(fmt.Sprintf(`
add table %[1]s testnet-ipvs
add chain %[1]s testnet-ipvs postrouting { type nat hook postrouting priority srcnat; }
add rule %[1]s testnet-ipvs postrouting %[1]s saddr %[2]s %[1]s daddr %[2]s masquerade
`, ip, to.Addr()))
}

// ipvsAddress makes an address local. It runs in the node's namespace.
func (n *Node) ipvsAddress(addr netip.Addr) error {
	const name = "kube-ipvs0"
	local, err := n.space.nl.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range local {
		if a.IP.Equal(addr.AsSlice()) {
			return nil
		}
	}
	link, err := n.space.nl.LinkByName(name)
	if err != nil {
		err = n.space.nl.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name}})
		if err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
		if link, err = n.space.nl.LinkByName(name); err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
	}
	return n.space.addAddr(link, singleHost(addr))
}

// run runs a program that says what is wrong.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
