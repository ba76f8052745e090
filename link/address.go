package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// Address is an address of the node on a link. It doesn't expire, and nobody else is asked whether
// they have it.
type Address struct {
	Link      string
	Prefix    netip.Prefix // the address, with what is on-link by it
	Different string       // what else about it isn't as it should be; empty if desired
}

// Kind and the following methods are an Item's.
func (a Address) Kind() Kind     { return KindAddress }
func (a Address) Key() string    { return fmt.Sprintf("%s dev %s", a.Prefix, a.Link) }
func (a Address) Device() string { return a.Link }
func (a Address) Remove() string { return "ip addr del " + a.Key() }
func (a Address) Add() string {
	return "ip addr replace " + a.Key() + When(a.Prefix.Addr().Is6(), " nodad") +
		remark(a.Different)
}

// Put adds the address, or makes it permanent.
func (a Address) Put(k *Kernel, _ []Item) error {
	on, err := k.Netlink(a.Link)
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: netipx.PrefixIPNet(a.Prefix)}
	if a.Prefix.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	return k.AddrReplace(on, address)
}

// Drop removes the address.
func (a Address) Drop(k *Kernel) error {
	on, err := k.Netlink(a.Link)
	if err != nil {
		return err
	}
	return k.AddrDel(on, &netlink.Addr{IPNet: netipx.PrefixIPNet(a.Prefix)})
}

// Addresses lists the addresses of all links.
func (k *Kernel) Addresses() ([]netlink.Addr, error) {
	return Whole("addresses", func() ([]netlink.Addr, error) {
		return k.AddrList(nil, netlink.FAMILY_ALL)
	})
}

// AddressOf is one of Addresses as an Item.
func (k *Kernel) AddressOf(a netlink.Addr) Address {
	var odd []string
	if a.Flags&unix.IFA_F_PERMANENT == 0 {
		odd = append(odd, "temporary")
	}
	if a.Flags&unix.IFA_F_DADFAILED != 0 {
		odd = append(odd, "dadfailed")
	}
	return Address{Link: k.Name(a.LinkIndex), Prefix: Prefix(a.IPNet), Different: join(odd)}
}
