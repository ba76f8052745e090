package overlay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ParseConfig reads flannel's net-conf.json, each key as flannel does on Linux with the Kubernetes
// API as its store:
//
//	Network, IPv6Network      the pods' networks, which must be usable if the family is on; host
//	                          bits are ignored
//	EnableIPv4, EnableIPv6    true and false if absent
//	Backend.Type              vxlan (if absent) or host-gw, in letters of either case
//	Backend.VNI               1 if absent
//	Backend.Port              0 or absent: the kernel's choice, 8472
//	Backend.MTU               of the underlay: the pods' is less by what the tunnel adds
//	Backend.DirectRouting     false if absent
//	Backend.GBP, Backend.Learning
//	                          only false, as the tunnel can do neither
//
// What has no effect only has to be readable: the network of a family that is off; SubnetLen,
// SubnetMin, SubnetMax and their IPv6 counterparts, as subnets come from the Nodes; EnableNFTables,
// as there is no other way here; what only Windows nodes heed; and, with host-gw, what is about
// tunnels.
//
// Case doesn't matter in keys, and null is the same as no key. Unknown and repeated keys and
// impossible values are refused: the error is a *ConfigError, or about the JSON itself.
func ParseConfig(data []byte) (Config, error) {
	top, err := readObject(data, "", "Network", "IPv6Network", "EnableIPv4", "EnableIPv6",
		"EnableNFTables", "SubnetLen",
		"SubnetMin", "SubnetMax", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax", "Backend")
	if err != nil {
		return Config{}, err
	}
	c := Config{}
	enable4 := read(top, "EnableIPv4", true, "true or false", always[bool])
	enable6 := read(top, "EnableIPv6", false, "true or false", always[bool])
	c.Network = top.network("Network", IPv4, enable4)
	c.IPv6Network = top.network("IPv6Network", IPv6, enable6)
	if !enable4 && !enable6 {
		top.refuse("EnableIPv4", "true, unless EnableIPv6 is")
	}
	top.subnets("Subnet", IPv4)
	top.subnets("IPv6Subnet", IPv6)
	read(top, "EnableNFTables", true, "true or false", always[bool])
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
	o, err := readObject(data, "Backend", "Type", "VNI", "Port", "MTU", "DirectRouting", "GBP",
		"Learning", "MacPrefix", "Name", "DNSServerList")
	if err != nil {
		return err
	}
	others := o.err // about keys that the backend of another type may have: Type says more
	o.err = nil
	kind := read(o, "Type", string(VXLAN), "vxlan or host-gw", func(s string) bool {
		b := Backend(strings.ToLower(s))
		return b == VXLAN || b == HostGW
	})
	if o.err == nil {
		o.err = others
	}
	c.Backend, c.VNI, c.Port = Backend(strings.ToLower(kind)), defaultVNI, defaultPort
	if c.Backend == VXLAN {
		c.readTunnel(o)
	} else {
		o.ignoreTunnel()
	}
	for _, key := range []string{"MacPrefix", "Name", "DNSServerList"} {
		read(o, key, "", "text, which only Windows nodes heed", always[string])
	}
	c.readMTU(o)
	return o.err
}

// readTunnel reads what is about tunnels alone.
func (c *Config) readTunnel(o *object) {
	c.VNI = read(o, "VNI", c.VNI, "a VXLAN network identifier, 0 to 16777215", func(n uint32) bool {
		return n < 1<<24
	})
	port := read(o, "Port", 0, "a UDP port, 1 to 65535, or 0 for 8472", always[uint16])
	if port != 0 {
		c.Port = port
	}
	c.DirectRouting = read(o, "DirectRouting", false, "true or false", always[bool])
	for _, key := range []string{"GBP", "Learning"} {
		read(o, key, false, "false, or no such key: the tunnel can't do that", func(on bool) bool {
			return !on
		})
	}
}

// ignoreTunnel reads what is about tunnels where there is none.
func (o *object) ignoreTunnel() {
	for _, key := range []string{"VNI", "Port"} {
		read(o, key, 0, "a whole number, which has no effect with host-gw", always[int])
	}
	for _, key := range []string{"DirectRouting", "GBP", "Learning"} {
		read(o, key, false, "true or false, which have no effect with host-gw", always[bool])
	}
}

func (c *Config) readMTU(o *object) {
	lowest := minMTU4
	if c.IPv6Network.IsValid() {
		lowest = minMTU6
	}
	if c.Backend == VXLAN {
		lowest += overhead6 // whatever the underlay's family
	}
	c.MTU = read(o, "MTU", 0,
		fmt.Sprintf("0 (the underlay's own) or %d to %d bytes", lowest, maxMTU), func(n int) bool {
			return n == 0 || n >= lowest && n <= maxMTU
		})
}

// object is a JSON object's keys as the caller spells them, and the first error in its values.
type object struct {
	name string // of the object itself, empty for the outermost
	raw  map[string]json.RawMessage
	err  error
}

func (o *object) key(key string) string { return strings.TrimPrefix(o.name+"."+key, ".") }

// refuse records an error about the value of key.
func (o *object) refuse(key, want string) { o.refuseValue(key, o.raw[key], want) }

func (o *object) refuseValue(key string, value json.RawMessage, want string) {
	if o.err != nil {
		return
	}
	if strings.EqualFold(strings.Trim(key, `"`), "PSK") {
		value = json.RawMessage(`"..."`)
	}
	o.err = &ConfigError{Key: o.key(key), Value: shorten(string(value)), Want: want}
}

// read is the value of key, or otherwise if the object has no such key.
func read[T any](o *object, key string, otherwise T, want string, ok func(T) bool) T {
	raw, has := o.raw[key]
	if !has {
		return otherwise
	}
	var v T
	if json.Unmarshal(raw, &v) != nil || !ok(v) {
		o.refuse(key, want)
		return otherwise
	}
	return v
}

func always[T any](T) bool { return true }

// network reads the network of a family's pods: the zero Prefix if the family is off, when the key
// need not be there.
func (o *object) network(key string, f Family, on bool) netip.Prefix {
	_, has := o.raw[key]
	if !on && !has {
		return netip.Prefix{}
	}
	example := map[Family]string{IPv4: "10.244.0.0/16", IPv6: "fd00:10:244::/56"}[f]
	want := fmt.Sprintf("an %s network, such as %s", f, example)
	if !on {
		want = fmt.Sprintf("a network, such as %s, although %s is off", example, f)
	}
	text := read(o, key, "", want, always[string])
	p, err := netip.ParsePrefix(text)
	readable := err == nil && (f == IPv6 || p.Addr().Is4()) // as flannel reads them
	if !readable || on && !usableNetwork(p, f) {
		o.refuse(key, want)
	}
	if !on {
		return netip.Prefix{}
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

// subnets reads the keys that say how flannel cuts a network into subnets where Kubernetes doesn't.
func (o *object) subnets(prefix string, f Family) {
	read(o, prefix+"Len", 0, "a prefix length, which has no effect", always[uint])
	for _, key := range []string{prefix + "Min", prefix + "Max"} {
		read(o, key, netip.IPv6Unspecified(), "an "+f.String()+" address, which has no effect",
			func(a netip.Addr) bool {
				return a.IsValid() && a.Zone() == "" && (f == IPv6 || a.Unmap().Is4())
			})
	}
}

// readObject splits an object into its keys. Keys are matched whatever their case, as encoding/json
// does it, but none may be unknown or there twice: the first one is the object's error, the others
// can still be read. Those that are null are left out.
func readObject(data []byte, name string, known ...string) (*object, error) {
	o := &object{name: name, raw: map[string]json.RawMessage{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("reading the configuration as JSON: %w", unexpectedEnd(err))
	} else if start != json.Delim('{') {
		return nil, &ConfigError{Key: o.nameOr("the configuration"), Value: shorten(string(data)),
			Want: "a JSON object"}
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("reading the configuration as JSON: %w", unexpectedEnd(err))
		}
		written, _ := token.(string) // keys always are
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("reading the value of %s as JSON: %w", o.key(quoted(written)),
				unexpectedEnd(err))
		}
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, written) })
		if i < 0 {
			o.refuseValue(quoted(written), raw, "one of the keys "+strings.Join(known, ", "))
			continue
		}
		if _, has := o.raw[known[i]]; has {
			o.refuseValue(known[i], raw, "the key only once")
			continue
		}
		o.raw[known[i]] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("reading the configuration as JSON: %w", unexpectedEnd(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reading the configuration as JSON: something follows the object")
	}
	maps.DeleteFunc(o.raw, func(_ string, raw json.RawMessage) bool {
		return string(raw) == "null"
	})
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
	isLetter := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r))
	}
	isOdd := key == "" || strings.ContainsFunc(key, func(r rune) bool { return !isLetter(r) })
	if short := shorten(key); short != key || !isOdd {
		return short
	}
	return strconv.Quote(key)
}

// secret is a key of flannel's WireGuard backend within some JSON. Errors end up in Events, which
// many may read.
var secret = regexp.MustCompile(`(?i)("PSK"\s*:\s*)(?:"(?:\\.|[^"\\])*"|[^\s,}\]]*)`)

// shorten keeps a message readable, whatever somebody wrote, and leaves secrets out.
func shorten(s string) string {
	const enough = 60
	s = secret.ReplaceAllString(s, `$1"..."`)
	if len(s) <= enough {
		return s
	}
	return strconv.Quote(s[:enough]) + "..."
}
