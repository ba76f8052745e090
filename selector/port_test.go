package selector

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const (
	tcp = 6
	udp = 17
)

func TestMergePorts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		in, want []PortRange
	}{
		{"nothing", nil, nil},
		{"one", []PortRange{{tcp, 80, 80}}, []PortRange{{tcp, 80, 80}}},
		{"duplicate", []PortRange{{tcp, 80, 80}, {tcp, 80, 80}}, []PortRange{{tcp, 80, 80}}},
		{"adjacent", []PortRange{{tcp, 81, 90}, {tcp, 80, 80}}, []PortRange{{tcp, 80, 90}}},
		{"gap of one", []PortRange{{tcp, 82, 90}, {tcp, 80, 80}},
			[]PortRange{{tcp, 80, 80}, {tcp, 82, 90}}},
		{"inside", []PortRange{{tcp, 1, 100}, {tcp, 5, 6}, {tcp, 101, 101}},
			[]PortRange{{tcp, 1, 101}}},
		{"protocols apart", []PortRange{{udp, 53, 53}, {tcp, 53, 53}, {tcp, 54, 54}},
			[]PortRange{{tcp, 53, 54}, {udp, 53, 53}}},
		{"last port", []PortRange{{tcp, 65535, 65535}, {udp, 0, 1}, {tcp, 65534, 65534}},
			[]PortRange{{tcp, 65534, 65535}, {udp, 0, 1}}},
		{"every port", []PortRange{{tcp, 0, 65535}, {tcp, 65535, 65535}, {tcp, 0, 0}},
			[]PortRange{{tcp, 0, 65535}}},
		{"backwards", []PortRange{{tcp, 90, 80}, {tcp, 85, 85}}, []PortRange{{tcp, 85, 85}}},
		{"only backwards", []PortRange{{tcp, 1, 0}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, MergePorts(tc.in)); diff != "" {
				t.Errorf("MergePorts(%v) (-want +got):\n%s", tc.in, diff)
			}
		})
	}
}

func TestMergePortsAgainstBitmap(t *testing.T) {
	t.Parallel()
	// Both ends of the numbers, where arithmetic goes wrong.
	port := rapid.OneOf(rapid.Uint16Range(0, 12), rapid.Uint16Range(65523, 65535))
	portRange := rapid.Custom(func(t *rapid.T) PortRange {
		return PortRange{
			Protocol: rapid.SampledFrom([]uint8{0, tcp, udp, 255}).Draw(t, "protocol"),
			First:    port.Draw(t, "first"),
			Last:     port.Draw(t, "last"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(portRange, 0, 8).Draw(t, "ranges")
		before := slices.Clone(in)
		out := MergePorts(in)
		if diff := cmp.Diff(before, in); diff != "" {
			t.Fatalf("MergePorts modified its argument (-before +after):\n%s", diff)
		}
		if diff := cmp.Diff(bitmap(in), bitmap(out)); diff != "" {
			t.Fatalf("MergePorts(%v) = %v holds other ports (-in +out):\n%s", in, out, diff)
		}
		for i := 1; i < len(out); i++ {
			a, b := out[i-1], out[i]
			if a.Protocol > b.Protocol || a.Protocol == b.Protocol &&
				int(a.Last)+1 >= int(b.First) {
				t.Fatalf("%v and %v aren't in order with a gap", a, b)
			}
		}
	})
}

// bitmap marks the ports of each protocol that are near an end of a random range, and 100 for all
// those in between.
func bitmap(ranges []PortRange) map[uint8][]bool {
	ports := []int{100}
	for i := range 16 {
		ports = append(ports, i, 65520+i)
	}
	slices.Sort(ports)
	out := make(map[uint8][]bool)
	for _, r := range ranges {
		if r.First > r.Last {
			continue
		}
		if out[r.Protocol] == nil {
			out[r.Protocol] = make([]bool, len(ports))
		}
		for i, p := range ports {
			if int(r.First) <= p && p <= int(r.Last) {
				out[r.Protocol][i] = true
			}
		}
	}
	return out
}
