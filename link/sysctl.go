package link

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// The families, as /proc/sys/net calls them.
const (
	IPv4 = "ipv4"
	IPv6 = "ipv6"
)

// Sysctl is a setting of a link that matters; all others are left alone.
type Sysctl struct {
	Family string // IPv4 or IPv6
	Link   string
	Name   string
	Value  int32
}

// Sysctl4 is a setting of IPv4.
func Sysctl4(link, name string, value int32) Sysctl { return Sysctl{IPv4, link, name, value} }

// Sysctl6 is a setting of IPv6.
func Sysctl6(link, name string, value int32) Sysctl { return Sysctl{IPv6, link, name, value} }

func (s Sysctl) path() string { return fmt.Sprintf("%s/conf/%s/%s", s.Family, s.Link, s.Name) }

// Kind and the following methods are an Item's. There is nothing to remove: a link always has the
// setting.
func (s Sysctl) Kind() Kind         { return KindSysctl }
func (s Sysctl) Key() string        { return s.path() }
func (s Sysctl) Device() string     { return s.Link }
func (s Sysctl) Remove() string     { return "" }
func (s Sysctl) Drop(*Kernel) error { return nil }
func (s Sysctl) Add() string        { return fmt.Sprintf("sysctl -w net/%s=%d", s.path(), s.Value) }

// Put writes the setting in the network namespace of the calling thread.
func (s Sysctl) Put(k *Kernel, _ []Item) error {
	return os.WriteFile(filepath.Join(k.SysctlDir, s.path()),
		strconv.AppendInt(nil, int64(s.Value), 10), 0)
}

// settings is where in the link's arrays a setting is. In linux/ipv6.h they are numbered from 0, in
// linux/ip.h from 1.
var settings = map[string]int{
	"ipv4/forwarding": 0, "ipv4/route_localnet": 25,
	"ipv6/accept_ra": 3, "ipv6/disable_ipv6": 26, "ipv6/accept_dad": 27,
}

// Settings is the link's values of some sysctls. A kernel without a family has none of its.
func (f Found) Settings(of []Sysctl) State {
	var now State
	for _, s := range of {
		if f.HasFamily(s.Family) {
			s.Value = f.setting(s)
			now = append(now, s)
		}
	}
	return now
}

// HasFamily says whether the kernel has a family, so that the link has its sysctls.
func (f Found) HasFamily(family string) bool {
	if family == IPv4 {
		return f.Conf4 != nil
	}
	return f.Conf6 != nil
}

func (f Found) setting(s Sysctl) int32 {
	const size, none = 4, -1 << 31 // none: what no setting is
	if s.Family == IPv6 && s.Name == "addr_gen_mode" {
		return f.addrGenMode
	}
	array := f.Conf6
	if s.Family == IPv4 {
		array = f.Conf4
	}
	i, known := settings[s.Family+"/"+s.Name]
	if !known || len(array) < (i+1)*size {
		return none
	}
	return int32(
		binary.NativeEndian.Uint32(array[i*size:])) //nolint:gosec // as the kernel means it
}
