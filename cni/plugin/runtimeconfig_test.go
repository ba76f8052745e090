package plugin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

func TestRuntimeConfig(t *testing.T) {
	t.Parallel()
	ports, bandwidth, err := parseRuntimeConfig([]byte(`{"portMappings":[
		{"hostPort":8080,"containerPort":80,"protocol":"tcp"},
		{"hostPort":8080,"containerPort":80,"protocol":"UDP","hostIP":""},
		{"hostPort":53,"containerPort":5353,"protocol":"sctp","hostIP":"::ffff:192.0.2.1"},
		{"hostPort":53,"containerPort":5353,"protocol":"sctp","hostIP":"192.0.2.2"},
		{"hostPort":65535,"containerPort":1,"protocol":"tcp","hostIP":"::"},
		{"hostPort":65535,"containerPort":1,"protocol":"tcp","hostIP":"0.0.0.0"}],
		"bandwidth":{"ingressRate":1000000,"ingressBurst":4294967295,"egressRate":0},"mac":"ignored"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []cni.HostPort{
		{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
		{HostPort: 8080, ContainerPort: 80, Protocol: "udp"},
		{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 53, ContainerPort: 5353,
			Protocol: "sctp"},
		{HostIP: netip.MustParseAddr("192.0.2.2"), HostPort: 53, ContainerPort: 5353,
			Protocol: "sctp"},
		{HostIP: netip.MustParseAddr("::"), HostPort: 65535, ContainerPort: 1, Protocol: "tcp"},
		{HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: 65535, ContainerPort: 1,
			Protocol: "tcp"},
	}
	if diff := cmp.Diff(want, ports, cmp.Comparer(cnitest.SameAddr)); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if want := (cni.Bandwidth{IngressRate: 1_000_000,
		IngressBurst: 4_294_967_295}); bandwidth != want {
		t.Errorf("bandwidth %+v, want %+v", bandwidth, want)
	}
	if ports, bandwidth, err := parseRuntimeConfig(nil); err != nil || len(ports) > 0 ||
		bandwidth != (cni.Bandwidth{}) {
		t.Errorf("without one: %v, %v and %v", ports, bandwidth, err)
	}
}

// A host port of a pod may be for all addresses, all of a family and one address at once, as far as
// the API server is concerned.
func TestHostPortsOfOnePod(t *testing.T) {
	t.Parallel()
	all := `{"hostPort":80,"containerPort":1,"protocol":"tcp"}`
	for name, list := range map[string]string{
		"all and one address": all +
			`,{"hostPort":80,"containerPort":2,"protocol":"tcp","hostIP":"192.0.2.1"}`,
		"one address and all": `{"hostPort":80,"containerPort":2,"protocol":"tcp","hostIP":"::1"},` + all,
		"all and all of IPv4": all +
			`,{"hostPort":80,"containerPort":2,"protocol":"tcp","hostIP":"0.0.0.0"}`,
		"all of IPv6 and one of its":   `{"hostPort":80,"containerPort":2,"protocol":"tcp","hostIP":"::"},{"hostPort":80,"containerPort":3,"protocol":"tcp","hostIP":"::1"}`,
		"one address in two spellings": `{"hostPort":80,"containerPort":2,"protocol":"tcp","hostIP":"::1"},{"hostPort":80,"containerPort":2,"protocol":"tcp","hostIP":"0::1"}`,
	} {
		ports, _, err := parseRuntimeConfig([]byte(`{"portMappings":[` + list + `]}`))
		if err != nil || len(ports) != 2 {
			t.Errorf("%s: %v, %v", name, ports, err)
		}
	}
}

// TestRuntimeConfigErrors: name the field, its value, and what it may be.
func TestRuntimeConfigErrors(t *testing.T) {
	t.Parallel()
	port := func(fields string) string {
		return `{"portMappings":[{"hostPort":1,"containerPort":1,"protocol":"tcp"},{` +
			fields + `}]}`
	}
	for name, c := range map[string]struct {
		config string
		code   uint
		says   string
	}{
		"no host port": {port(`"containerPort":80,"protocol":"tcp"`), 7,
			"portMappings[1].hostPort: 0, want 1 to 65535"},
		"large host port": {port(`"hostPort":65536,"containerPort":80,"protocol":"tcp"`), 7,
			"portMappings[1].hostPort: 65536, want 1 to 65535"},
		"negative port": {port(`"hostPort":80,"containerPort":-1,"protocol":"tcp"`), 7,
			"portMappings[1].containerPort: -1, want 1 to 65535"},
		"no protocol": {port(`"hostPort":80,"containerPort":80`), 7,
			`portMappings[1].protocol: "", want tcp, udp or sctp`},
		"other protocol": {port(`"hostPort":80,"containerPort":80,"protocol":"icmp"`), 7,
			`portMappings[1].protocol: "icmp", want tcp, udp or sctp`},
		"no address": {
			port(`"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"eth0"`), 7,
			`portMappings[1].hostIP: "eth0", want an IP address`},
		"a multicast group": {
			port(`"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"224.0.0.1"`), 7,
			"portMappings[1].hostIP: 224.0.0.1, want an address of the node"},
		"a zone": {
			port(`"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"fe80::1%eth0"`), 7,
			"portMappings[1].hostIP: fe80::1%eth0"},
		"contradiction": {port(`"hostPort":1,"containerPort":2,"protocol":"tcp"`), 7,
			"portMappings[1]: tcp *:1 to port 2, want port 1 as in portMappings[0]"},
		"one address twice": {
			port(`"hostPort":2,"containerPort":2,"protocol":"tcp","hostIP":"::1"},{"hostPort":2,"containerPort":3,"protocol":"tcp","hostIP":"0::1"`), 7, "portMappings[2]: tcp [::1]:2 to port 3, want port 2 as in portMappings[1]"},
		"text for a port": {port(`"hostPort":"80","containerPort":-1`), 7,
			`portMappings[1].hostPort: "80", want 1 to 65535`},
		"two bad ports": {port(`"hostPort":0,"containerPort":65536,"protocol":"tcp"`), 7,
			"portMappings[1].containerPort: 65536, want 1 to 65535"},
		"a huge port": {port(`"hostPort":1e400,"containerPort":80,"protocol":"tcp"`), 7,
			"portMappings[1].hostPort: 1e400, want 1 to 65535"},
		"beyond 64 bits": {port(`"hostPort":18446744073709551696,"containerPort":80`), 7,
			"portMappings[1].hostPort: 18446744073709551696, want 1 to 65535"},
		"half a port": {port(`"hostPort":80.5,"containerPort":80`), 7,
			"portMappings[1].hostPort: 80.5, want 1 to 65535"},
		"minus zero": {port(`"hostPort":-0,"containerPort":80`), 7,
			"portMappings[1].hostPort: -0, want 1 to 65535"},
		"an object": {port(`"hostPort":{"a":` + "\n\t" + `[1]}`), 7,
			`portMappings[1].hostPort: {"a": [1]}, want 1 to 65535`},
		"a long number": {port(`"hostPort":1` + strings.Repeat("0", 5000)), 7,
			"... (5001 bytes), want 1 to 65535"},
		"null for a port": {port(`"hostPort":null,"containerPort":80`), 7,
			"portMappings[1].hostPort: 0, want 1 to 65535"},
		"a null mapping": {`{"portMappings":[null]}`, 7,
			"portMappings[0].hostPort: 0, want 1 to 65535"},
		"NaN": {port(`"hostPort":NaN`), 6, "decoding runtimeConfig; invalid character 'N'"},
		"a control": {port(`"hostPort":80,"containerPort":80,"protocol":"tcp\u001b[2J"`), 7,
			`portMappings[1].protocol: "tcp\x1b[2j", want tcp, udp or sctp`},
		"another control": {
			port(`"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"::1\u0000"`), 7,
			`portMappings[1].hostIP: "::1\x00", want an IP address`},
		"leading zeros": {
			port(`"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"192.0.02.1"`), 7,
			`portMappings[1].hostIP: "192.0.02.1", want an IP address`},
		"a prefix": {
			port(`"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.0/24"`), 7,
			`portMappings[1].hostIP: "192.0.2.0/24", want an IP address`},
		"a space": {
			port(`"hostPort":80,"containerPort":80,"protocol":"tcp","hostIP":" "`), 7,
			`portMappings[1].hostIP: " ", want an IP address`},
		"too many ports": {`{"portMappings":[` +
			strings.TrimSuffix(strings.Repeat(`{"hostPort":1,"containerPort":1,"protocol":"tcp"},`,
				501), ",") + `]}`, 7, "portMappings: 501 entries, want at most 500"},
		"a huge rate": {`{"bandwidth":{"ingressRate":1e400,"ingressBurst":8}}`, 7,
			"bandwidth.ingressRate: 1e400, want a whole number of bits per second below 2^64"},
		"a huge burst": {`{"bandwidth":{"ingressRate":8,"ingressBurst":18446744073709551616}}`,
			7,
			"bandwidth.ingressBurst: 18446744073709551616, want a whole number of bits below 2^64"},
		"text for a rate": {`{"bandwidth":{"egressRate":"10M","egressBurst":8}}`, 7,
			`bandwidth.egressRate: "10M", want a whole number of bits per second below 2^64`},
		"half a burst": {`{"bandwidth":{"egressRate":8,"egressBurst":8.5}}`, 7,
			"bandwidth.egressBurst: 8.5, want a whole number of bits below 2^64"},
		"both at once": {`{"portMappings":[{}],"bandwidth":{"egressRate":true}}`, 7,
			"bandwidth.egressRate: true"},
		"not a list": {`{"portMappings":7}`, 6, "portMappings"},
		"rate, no burst": {`{"bandwidth":{"ingressRate":1000}}`, 7,
			"bandwidth.ingressBurst: 0 with a rate, want at least 8 bits"},
		"burst, no rate": {`{"bandwidth":{"egressBurst":1000}}`, 7,
			"bandwidth.egressRate: 0 with a burst of 1000 bits, want a rate"},
		"a slow rate": {`{"bandwidth":{"egressRate":7,"egressBurst":1000}}`, 7,
			"bandwidth.egressRate: 7, want at least 8 bits per second"},
		"a large burst": {`{"bandwidth":{"egressRate":9,"egressBurst":34359738368}}`, 7,
			"bandwidth.egressBurst: 34359738368, want at most 34359738360 bits"},
		"a negative rate": {`{"bandwidth":{"egressRate":-1}}`, 7,
			"bandwidth.egressRate: -1, want a whole number of bits per second below 2^64"},
		"not an object": {`[]`, 6, "decoding runtimeConfig"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := parseRuntimeConfig([]byte(c.config))
			cnitest.MustFail(t, err, c.code, c.says)
		})
	}
}
