package ruleset_test

import (
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/selector"
)

// TestPortSet: few ports are elements of their own, all of them and no other; many are ranges.
func TestPortSet(t *testing.T) {
	t.Parallel()
	const tcp, udp = policy.ProtocolTCP, policy.ProtocolUDP
	ports := func(protocol uint8, first, last uint16) selector.PortRange {
		return selector.PortRange{Protocol: protocol, First: first, Last: last}
	}
	for name, c := range map[string]struct {
		ranges   []selector.PortRange
		elements int
		some     []nft.Element
	}{
		"few": {[]selector.PortRange{ports(tcp, 80, 82), ports(udp, 53, 53)}, 4,
			[]nft.Element{nft.ProtoPortElement(tcp, 80), nft.ProtoPortElement(tcp, 81),
				nft.ProtoPortElement(tcp, 82), nft.ProtoPortElement(udp, 53)}},
		"the last few": {[]selector.PortRange{ports(tcp, 65504, 65535)}, 32,
			[]nft.Element{nft.ProtoPortElement(tcp, 65504), nft.ProtoPortElement(tcp, 65535)}},
		"one more": {[]selector.PortRange{ports(tcp, 1, 32), ports(udp, 53, 53)}, 2,
			[]nft.Element{nft.PortsElement(tcp, 1, 32), nft.PortsElement(udp, 53, 53)}},
		"all of two protocols": {
			[]selector.PortRange{ports(tcp, 0, 65535), ports(udp, 0, 65535)}, 2,
			[]nft.Element{nft.PortsElement(tcp, 0, 65535), nft.PortsElement(udp, 0, 65535)}},
	} {
		s := ruleset.PortSet(c.ranges)
		if len(s.Elements) != c.elements {
			t.Errorf("%s: %d elements, want %d", name, len(s.Elements), c.elements)
		}
		for _, e := range c.some {
			if _, ok := s.Elements[e]; !ok || s.Interval != (e.Last != "") {
				t.Errorf("%s: no element %s", name, e.Text(s.Key))
			}
		}
	}
}
