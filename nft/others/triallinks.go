package others

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
)

// routeProtocol marks the routes of a trial.
const routeProtocol netlink.RouteProtocol = names.TrialRoutes

// The links of a trial: packets that are sent on a pair's far end arrive at its near end, and the
// other way round.
const (
	nearIn  = names.TrialLink + "0"
	farIn   = names.TrialLink + "1"
	nearOut = names.TrialLink + "2"
	farOut  = names.TrialLink + "3"
)

// links are a trial's two veth pairs.
type links struct {
	nl            netlinksafe.Handle
	farIn, farOut int // interface indices
	nearMAC       net.HardwareAddr
}

// macOf is the fixed MAC of a link: a locally administered unicast address. It is set at the
// creation, so that no daemon picks another one.
func macOf(link byte) net.HardwareAddr { return net.HardwareAddr{0x02, 's', 'l', 'p', 'r', link} }

// noLink is a MAC that no link has.
func noLink() net.HardwareAddr { return macOf(0xff) }

// makeLinks makes both pairs and the routes of the trials, after removing those of a trial that was
// killed. The near ends have no ARP or neighbour discovery and no addresses, and send to their own
// MAC. So each packet that comes to a far end is for another host: a packet socket sees it, and the
// node neither answers nor forwards it a second time.
func makeLinks(sysctlDir string, trials []*trial) (*links, error) {
	nl, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	l := &links{nl: nl, nearMAC: macOf(0)}
	if err := l.make(sysctlDir, trials); err != nil {
		return nil, errors.Join(err, l.remove())
	}
	return l, nil
}

func (l *links) make(sysctlDir string, trials []*trial) error {
	if err := l.removePairs(); err != nil {
		return err
	}
	for _, t := range trials {
		for _, addr := range []netip.Addr{t.path.Source, t.path.Destination} {
			if err := l.checkUnused(addr); err != nil {
				return err
			}
		}
	}
	in, far, err := l.pair(nearIn, farIn, 0)
	if err != nil {
		return err
	}
	l.farIn = far
	out, far, err := l.pair(nearOut, farOut, 2)
	if err != nil {
		return err
	}
	l.farOut = far
	for _, t := range trials {
		if err := enable(sysctlDir, t.path.Source); err != nil {
			return err
		}
		if err := l.route(t.path.Source, in); err != nil {
			return err
		}
		if err := l.route(t.path.Destination, out); err != nil {
			return err
		}
	}
	return nil
}

// pair makes a veth pair, up, and returns the indices of its ends. The number goes into their MACs.
func (l *links) pair(near, far string, number byte) (nearIndex, farIndex int, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near
	attrs.HardwareAddr = macOf(number)
	err = l.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far,
		PeerHardwareAddr: macOf(number + 1)})
	if err != nil {
		return 0, 0, fmt.Errorf("adding veth %s: %w", near, err)
	}
	var index [2]int
	for i, name := range []string{near, far} {
		link, err := l.nl.LinkByName(name)
		if err != nil {
			return 0, 0, fmt.Errorf("finding %s: %w", name, err)
		}
		if err := l.raise(link); err != nil {
			return 0, 0, fmt.Errorf("setting %s up: %w", name, err)
		}
		index[i] = link.Attrs().Index
	}
	return index[0], index[1], nil
}

// raise sets a link up without addresses, not even IPv6's own link-local one, and without address
// resolution.
func (l *links) raise(link netlink.Link) error {
	const noAddress = 1 // IN6_ADDR_GEN_MODE_NONE
	// A kernel without IPv6 has no such mode.
	if err := l.nl.LinkSetIP6AddrGenMode(link, noAddress); err != nil &&
		!errors.Is(err, unix.EAFNOSUPPORT) {
		return err
	}
	if err := l.nl.LinkSetARPOff(link); err != nil {
		return err
	}
	return l.nl.LinkSetUp(link)
}

// enable makes the near ends take and forward a family's packets where new links don't, as package
// cni does for pods.
func enable(sysctlDir string, family netip.Addr) error {
	key, value := "ipv4/conf/%s/forwarding", "1" // IPv6 has one switch for the whole node
	if family.Is6() {
		key, value = "ipv6/conf/%s/disable_ipv6", "0"
	}
	for _, name := range []string{nearIn, nearOut} {
		path := filepath.Join(sysctlDir, fmt.Sprintf(key, name))
		on, err := readSwitch(path)
		if err == nil && on != (value == "1") {
			err = os.WriteFile(path, []byte(value), 0)
		}
		if err != nil {
			return fmt.Errorf("setting sysctl net/"+key+" to %s: %w", name, value, err)
		}
	}
	return nil
}

// checkUnused returns an error if there is a route to exactly this address, which a pod or the node
// has then.
func (l *links) checkUnused(addr netip.Addr) error {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	only := &netlink.Route{Dst: netipx.PrefixIPNet(host(addr)), Table: unix.RT_TABLE_UNSPEC}
	routes, err := l.nl.RouteListFiltered(family, only,
		netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("looking for routes to %s: %w", addr, err)
	}
	if len(routes) > 0 {
		return fmt.Errorf("%s is in use: there is a route to it, %s", addr, routes[0])
	}
	return nil
}

func (l *links) route(to netip.Addr, link int) error {
	err := l.nl.RouteAdd(&netlink.Route{
		Dst: netipx.PrefixIPNet(host(to)), LinkIndex: link, Scope: netlink.SCOPE_LINK,
		Protocol: routeProtocol,
		Table:    unix.RT_TABLE_MAIN,
	})
	if err != nil {
		return fmt.Errorf("adding a route to %s: %w", to, err)
	}
	return nil
}

// remove removes the links, and with them their routes.
func (l *links) remove() error {
	defer l.nl.Close()
	return l.removePairs()
}

// RemoveTrial removes the links of a trial that was killed, with their routes, in the network
// namespace of the calling thread. No trial
// may run. Missing links are no error.
func RemoveTrial() error {
	nl, err := netlinksafe.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	return (&links{nl: nl}).remove()
}

// removePairs removes the links that exist, of this trial or of another.
func (l *links) removePairs() error {
	var errs []error
	for _, name := range []string{nearIn, nearOut} {
		link, err := l.nl.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = l.nl.LinkDel(link)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("removing %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
