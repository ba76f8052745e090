package plugin

import (
	"fmt"
	"net"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
)

// wiringOf checks an answer and turns it into what wire takes.
func wiringOf(r cni.AddAnswer, ifName, alias string) (podlink.Wiring, error) {
	w := podlink.Wiring{HostName: r.Interface, PodName: ifName, Alias: alias, MTU: r.MTU,
		NodeAddrs: r.NodeAddresses}
	if !cni.IsInterfaceName(r.Interface) {
		return podlink.Wiring{}, fmt.Errorf("interface name %s", cni.Quote(r.Interface))
	}
	var err error
	if w.HostMAC, err = parseMAC(r.HostMAC); err != nil {
		return podlink.Wiring{}, err
	}
	if w.PodMAC, err = parseMAC(r.PodMAC); err != nil {
		return podlink.Wiring{}, err
	}
	for _, p := range r.Addresses {
		if !p.IsValid() || !p.IsSingleIP() {
			return podlink.Wiring{}, fmt.Errorf("address %s", p)
		}
		w.Addrs = append(w.Addrs, p.Addr())
	}
	if err := cni.ValidateAddresses(w.Addrs); err != nil {
		return podlink.Wiring{}, err
	}
	return w, cni.ValidateMTU(r.MTU, cni.Has6(w.Addrs))
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return nil, fmt.Errorf("hardware address %s", cni.Quote(s))
	}
	return mac, nil
}
