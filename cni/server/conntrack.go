package server

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/conntrack"
)

// forgetConnections deletes from connection tracking, in the network namespace of the calling
// thread, each connection that has one of the addresses on either side of either direction.
// Otherwise the next pod with the address inherits what the last one was allowed. Deleting what is
// gone meanwhile is no error.
func forgetConnections(addrs []netip.Addr) error {
	wanted := map[netip.Addr]bool{}
	var queries []conntrack.Query
	for _, addr := range addrs {
		addr = addr.Unmap().WithZone("")
		if !addr.IsValid() || wanted[addr] {
			continue
		}
		wanted[addr] = true
		queries = append(queries, conntrack.Anywhere(addr)...)
	}
	err := forget(queries, func(e *conntrack.Entry) bool {
		return wanted[e.Orig.Src] || wanted[e.Orig.Dst] || wanted[e.Reply.Src] ||
			wanted[e.Reply.Dst]
	})
	if err != nil {
		return fmt.Errorf("forgetting the connections of %s: %w", addrs, err)
	}
	return nil
}

// ForgetConnections deletes what connection tracking remembers of addresses, in the node's network
// namespace, except for those of attachments, which ADD and DEL see to.
func (s *Server) ForgetConnections(addrs []netip.Addr) error {
	mine := map[netip.Addr]bool{}
	for _, a := range s.Attachments() {
		for _, addr := range a.Addresses {
			mine[addr] = true
		}
	}
	var others []netip.Addr
	for _, addr := range addrs {
		if !mine[addr] {
			others = append(others, addr)
		}
	}
	return s.inHost(func() error { return forgetConnections(others) })
}

// forgetHostPorts deletes the UDP connections to these host ports, in the network namespace of the
// calling thread. A client that keeps sending keeps its entry alive, and with it the way to the
// port's last owner, or to none. TCP and SCTP begin anew by themselves.
func forgetHostPorts(ports []cni.HostPort) error {
	var udp []cni.HostPort
	var queries []conntrack.Query
	for _, p := range ports {
		if p.Protocol == "udp" {
			udp = append(udp, p)
			queries = append(queries, conntrack.ToUDPPort(p.HostIP, p.HostPort)...)
		}
	}
	err := forget(queries, func(e *conntrack.Entry) bool {
		return slices.ContainsFunc(udp, func(p cni.HostPort) bool { return isTo(e, p) })
	})
	if err != nil {
		return fmt.Errorf("forgetting the connections to host ports %v: %w", udp, err)
	}
	return nil
}

// isTo tells whether a connection was opened to a UDP host port.
func isTo(e *conntrack.Entry, p cni.HostPort) bool {
	host := p.HostIP.Unmap()
	switch {
	case e.Orig.Proto != unix.IPPROTO_UDP || e.Orig.DstPort != p.HostPort:
		return false
	case !host.IsValid():
		return true
	case host.IsUnspecified():
		return host.Is4() == e.Orig.Dst.Is4()
	default:
		return host == e.Orig.Dst
	}
}

// forget deletes the entries that match among those that the queries find.
func forget(queries []conntrack.Query, match func(*conntrack.Entry) bool) error {
	if len(queries) == 0 {
		return nil
	}
	table, err := conntrack.Open()
	if err != nil {
		return err
	}
	defer table.Close()
	found, err := table.Find(queries, match)
	if err != nil {
		return err
	}
	for i := range found {
		if err := table.Delete(&found[i]); err != nil {
			return err
		}
	}
	return nil
}
