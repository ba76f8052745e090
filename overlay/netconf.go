package overlay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ParseConfig reads flannel's net-conf.json:
//
//	Network, IPv6Network      the pods' networks; host bits are ignored, as flannel does
//	EnableIPv4, EnableIPv6    true and false if absent
//	SubnetLen, SubnetMin, SubnetMax and IPv6SubnetLen, IPv6SubnetMin, IPv6SubnetMax
//	                          must make sense, and have no effect: subnets come from the Nodes
//	EnableNFTables            has no effect: there is no other way here
//	Backend.Type              vxlan (if absent) or host-gw
//	Backend.VNI, Backend.Port 1 and 8472 if absent
//	Backend.MTU               of the underlay, as in flannel: the pods' is less by what the tunnel adds
//	Backend.DirectRouting     false if absent
//
// Case doesn't matter in keys. Unknown and repeated keys, impossible values, and keys that the backend has no use for are refused:
// the error is a *ConfigError, or about the JSON itself.
func ParseConfig(data []byte) (Config, error) {
	top, err := readObject(data, "", "Network", "IPv6Network", "EnableIPv4", "EnableIPv6", "EnableNFTables", "SubnetLen",
		"SubnetMin", "SubnetMax", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax", "Backend")
	if err != nil {
		return Config{}, err
	}
	c := Config{}
	enable4 := read(top, "EnableIPv4", true, "true or false", always[bool])
	enable6 := read(top, "EnableIPv6", false, "true or false", always[bool])
	read(top, "EnableNFTables", true, "true or false", always[bool])
	c.Network = top.network("Network", IPv4, enable4)
	c.IPv6Network = top.network("IPv6Network", IPv6, enable6)
	top.subnets("Subnet", IPv4, c.Network)
	top.subnets("IPv6Subnet", IPv6, c.IPv6Network)
	if !enable4 && !enable6 {
		top.refuse("EnableIPv4", "true, unless EnableIPv6 is")
	}
	if !enable4 {
		c.Network = netip.Prefix{}
	}
	if !enable6 {
		c.IPv6Network = netip.Prefix{}
	}
	if top.err != nil {
		return Config{}, top.err
	}
	if err := c.readBackend(top.raw["Backend"]); err != nil {
		return Config{}, err
	}
	return c, nil
}

func (c *Config) readBackend(data json.RawMessage) error {
	if data == nil {
		data = json.RawMessage("{}")
	}
	o, err := readObject(data, "Backend", "Type", "VNI", "Port", "MTU", "DirectRouting")
	if err != nil {
		return err
	}
	c.Backend = read(o, "Type", VXLAN, "vxlan or host-gw", func(b Backend) bool { return b == VXLAN || b == HostGW })
	c.VNI = read(o, "VNI", uint32(defaultVNI), "a VXLAN network identifier, 1 to 16777215", func(n uint32) bool { return n > 0 && n < 1<<24 })
	c.Port = read(o, "Port", uint16(defaultPort), "a UDP port, 1 to 65535", func(n uint16) bool { return n > 0 })
	c.DirectRouting = read(o, "DirectRouting", false, "true or false", always[bool])
	lowest := minMTU4
	if c.IPv6Network.IsValid() {
		lowest = minMTU6
	}
	if c.Backend == VXLAN {
		lowest += overhead6 // whatever the underlay's family
	}
	c.MTU = read(o, "MTU", 0, fmt.Sprintf("0 (the underlay's own) or %d to %d bytes", lowest, maxMTU), func(n int) bool {
		return n == 0 || n >= lowest && n <= maxMTU
	})
	if o.err == nil && c.Backend == HostGW {
		for _, key := range []string{"VNI", "Port", "DirectRouting"} {
			if _, has := o.raw[key]; has {
				o.refuse(key, "no such key, as Backend.Type is host-gw")
			}
		}
	}
	return o.err
}

// object is a JSON object's keys as the caller spells them, and the first error in its values.
type object struct {
	name string // of the object itself, empty for the outermost
	raw  map[string]json.RawMessage
	err  error
}

func (o *object) key(key string) string { return strings.TrimPrefix(o.name+"."+key, ".") }

// refuse records an error about the value of key.
func (o *object) refuse(key, want string) {
	if o.err == nil {
		o.err = &ConfigError{Key: o.key(key), Value: shorten(string(o.raw[key])), Want: want}
	}
}

// read is the value of key, or otherwise if the object has no such key.
func read[T any](o *object, key string, otherwise T, want string, ok func(T) bool) T {
	raw, has := o.raw[key]
	if !has {
		return otherwise
	}
	var v T
	if string(raw) == "null" || json.Unmarshal(raw, &v) != nil || !ok(v) {
		o.refuse(key, want)
		return otherwise
	}
	return v
}

func always[T any](T) bool { return true }

// network reads a prefix that pods can be in. It must be there if the family is on.
func (o *object) network(key string, f Family, on bool) netip.Prefix {
	want := fmt.Sprintf("an %s network, such as %s", f, map[Family]string{IPv4: "10.244.0.0/16", IPv6: "fd00:10:244::/56"}[f])
	text := read(o, key, "", want, always[string])
	if _, has := o.raw[key]; !has && !on {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !usableNetwork(p, f) {
		o.refuse(key, want)
	}
	return p.Masked()
}

func usableNetwork(p netip.Prefix, f Family) bool {
	a := p.Masked().Addr()
	return p.Addr().BitLen() == f.bits() && !a.Is4In6() && p.Bits() > 0 && p.Bits() <= f.bits()-2 &&
		!a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsUnspecified()
}

func (f Family) bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// subnets checks the keys that say how flannel cuts a network into subnets.
func (o *object) subnets(prefix string, f Family, network netip.Prefix) {
	longest := f.bits() - 2
	shortest := max(network.Bits(), 0)
	read(o, prefix+"Len", longest, fmt.Sprintf("a prefix length, %d to %d", shortest, longest), func(n int) bool { return n >= shortest && n <= longest })
	inside := "an address in the network " + network.String()
	if !network.IsValid() {
		inside = "no such key without a network"
	}
	contained := func(a netip.Addr) bool { return a.IsValid() && network.Contains(a) }
	lowest := read(o, prefix+"Min", network.Addr(), inside, contained)
	read(o, prefix+"Max", lowest, inside+", not before "+prefix+"Min", func(a netip.Addr) bool { return contained(a) && !a.Less(lowest) })
}

// readObject splits an object into its keys. Keys are matched whatever their case, as encoding/json does it, but none may be
// unknown or there twice.
func readObject(data []byte, name string, known ...string) (*object, error) {
	o := &object{name: name, raw: map[string]json.RawMessage{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("reading the configuration as JSON: %w", unexpectedEnd(err))
	} else if start != json.Delim('{') {
		return nil, &ConfigError{Key: o.nameOr("the configuration"), Value: shorten(string(data)), Want: "a JSON object"}
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("reading the configuration as JSON: %w", unexpectedEnd(err))
		}
		written, _ := token.(string) // keys always are
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("reading the value of %s as JSON: %w", o.key(quoted(written)), unexpectedEnd(err))
		}
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, written) })
		if i < 0 {
			return nil, &ConfigError{Key: o.key(quoted(written)), Value: shorten(string(raw)), Want: "one of the keys " + strings.Join(known, ", ")}
		}
		if _, has := o.raw[known[i]]; has {
			return nil, &ConfigError{Key: o.key(known[i]), Value: shorten(string(raw)), Want: "the key only once"}
		}
		o.raw[known[i]] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("reading the configuration as JSON: %w", unexpectedEnd(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading the configuration as JSON: something follows the object")
	}
	return o, nil
}

func (o *object) nameOr(otherwise string) string {
	if o.name == "" {
		return otherwise
	}
	return o.name
}

func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// quoted is a key that somebody wrote: in quotes, unless it looks like one.
func quoted(key string) string {
	isLetter := func(r rune) bool { return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) }
	isOdd := key == "" || strings.ContainsFunc(key, func(r rune) bool { return !isLetter(r) })
	if short := shorten(key); short != key || !isOdd {
		return short
	}
	return strconv.Quote(key)
}

// shorten keeps a message readable, whatever somebody wrote.
func shorten(s string) string {
	const enough = 60
	if len(s) <= enough {
		return s
	}
	return strconv.Quote(s[:enough]) + "..."
}
