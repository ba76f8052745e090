package cni

import (
	"fmt"
	"net"
)

// wiringOf checks an answer and turns it into what wire takes.
func wiringOf(r AddAnswer, ifName, alias string) (wiring, error) {
	w := wiring{hostName: r.Interface, podName: ifName, alias: alias, mtu: r.MTU, nodeAddrs: r.NodeAddresses}
	if !isInterfaceName(r.Interface) {
		return wiring{}, fmt.Errorf("interface name %s", quote(r.Interface))
	}
	var err error
	if w.hostMAC, err = parseMAC(r.HostMAC); err != nil {
		return wiring{}, err
	}
	if w.podMAC, err = parseMAC(r.PodMAC); err != nil {
		return wiring{}, err
	}
	for _, p := range r.Addresses {
		if !p.IsValid() || !p.IsSingleIP() {
			return wiring{}, fmt.Errorf("address %s", p)
		}
		w.addrs = append(w.addrs, p.Addr())
	}
	if err := validateAddresses(w.addrs); err != nil {
		return wiring{}, err
	}
	return w, validateMTU(r.MTU, has6(w.addrs))
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return nil, fmt.Errorf("hardware address %s", quote(s))
	}
	return mac, nil
}
