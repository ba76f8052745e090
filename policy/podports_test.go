package policy_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
)

// PodPorts have the ports that they were made of, and are == to those of equal ports and no others.
func TestPodPorts(t *testing.T) {
	t.Parallel()
	port := rapid.Custom(func(t *rapid.T) policy.PodPort {
		return policy.PodPort{
			NamedPort: policy.NamedPort{
				Protocol: rapid.SampledFrom([]uint8{policy.ProtocolTCP, policy.ProtocolUDP}).
					Draw(t, "protocol"),
				Name: rapid.SampledFrom([]string{"http", "h", "", "\x00\xff", "é",
					strings.Repeat("x", 255)}).Draw(t, "name"),
			},
			Number: rapid.Uint16().Draw(t, "number"),
		}
	})
	ports := rapid.SliceOfN(port, 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		list, other := ports.Draw(t, "ports"), ports.Draw(t, "other ports")
		made := policy.PodPortsOf(list...)
		if got := slices.Collect(made.All()); !slices.Equal(got, list) {
			t.Fatalf("made of %v, they have %v", list, got)
		}
		equal := made == policy.PodPortsOf(other...)
		if want := slices.Equal(list, other); equal != want {
			t.Fatalf("%v == %v: %v, want %v", list, other, equal, want)
		}
		tooLong := policy.PodPort{NamedPort: policy.NamedPort{Name: strings.Repeat("x", 256)}}
		if made != policy.PodPortsOf(append(list, tooLong)...) {
			t.Fatal("a name of 256 bytes counts")
		}
	})
}
