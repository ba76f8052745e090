package overlay_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-net/sluice/overlay"
)

var (
	net4 = netip.MustParsePrefix("10.244.0.0/16")
	net6 = netip.MustParsePrefix("fd00:10:244::/56")
)

func dual(change func(*overlay.Config)) overlay.Config {
	c := overlay.Config{Network: net4, IPv6Network: net6, Backend: overlay.VXLAN, VNI: 1,
		Port: 8472}
	if change != nil {
		change(&c)
	}
	return c
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		json string
		want overlay.Config
	}{
		"flannel's own manifest": {
			`{"Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": {"Type": "vxlan"}}`,
			overlay.Config{Network: net4, Backend: overlay.VXLAN, VNI: 1, Port: 8472},
		},
		"no backend": {`{"Network": "10.244.0.0/16"}`,
			overlay.Config{Network: net4, Backend: overlay.VXLAN, VNI: 1, Port: 8472}},
		"IPv6 given but off": {`{"Network": "10.244.0.0/16", "IPv6Network": "fd00::/48"}`,
			overlay.Config{Network: net4, Backend: overlay.VXLAN, VNI: 1, Port: 8472}},
		"dual stack": {
			`{"Network":"10.244.0.0/16","IPv6Network":"fd00:10:244::/56","EnableIPv6":true}`,
			dual(nil)},
		"IPv6 only": {
			`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/56"}`,
			dual(func(c *overlay.Config) {
				c.Network = netip.Prefix{}
			})},
		"host bits": {`{"Network": "10.244.1.9/16"}`,
			overlay.Config{Network: net4, Backend: overlay.VXLAN, VNI: 1, Port: 8472}},
		"other case": {
			`{"network": "10.244.0.0/16", "backend": {"type": "vxlan", "vni": 7}}`,
			overlay.Config{Network: net4, Backend: overlay.VXLAN, VNI: 7, Port: 8472}},
		"host-gw with an MTU": {
			`{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw", "MTU": 1400}}`,
			overlay.Config{Network: net4, Backend: overlay.HostGW, VNI: 1, Port: 8472, MTU: 1400}},
		"everything": {
			`{"Network":"10.244.0.0/16","IPv6Network":"fd00:10:244::/56","EnableIPv4":true,"EnableIPv6":true,"SubnetLen":24,
			  "SubnetMin":"10.244.1.0","SubnetMax":"10.244.250.0","IPv6SubnetLen":64,"IPv6SubnetMin":"fd00:10:244:1::",
			  "IPv6SubnetMax":"fd00:10:244:f::","Backend":{"Type":"vxlan","VNI":16777215,"Port":4789,"MTU":9000,"DirectRouting":true}}`,
			dual(func(c *overlay.Config) {
				c.VNI, c.Port, c.MTU, c.DirectRouting = 1<<24-1, 4789, 9000, true
			}),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := overlay.ParseConfig([]byte(test.json))
			if err != nil {
				t.Fatal(err)
			}
			diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.Prefix{}))
			if diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	t.Parallel()
	backend := func(b string) string { return `{"Network":"10.244.0.0/16","Backend":` + b + `}` }
	tests := map[string]struct{ json, key, value string }{
		"unknown key": {`{"Network":"10.244.0.0/16","Foo":1}`, "Foo", "1"},
		"key twice": {`{"Network":"10.244.0.0/16","network":"10.0.0.0/8"}`, "Network",
			`"10.0.0.0/8"`},
		"no network": {`{}`, "Network", ""},
		"no IPv6 network": {`{"Network":"10.244.0.0/16","EnableIPv6":true}`,
			"IPv6Network", ""},
		"network is a number":    {`{"Network":10}`, "Network", "10"},
		"network is null":        {`{"Network":null}`, "Network", ""},
		"network without length": {`{"Network":"10.244.0.0"}`, "Network", `"10.244.0.0"`},
		"network of IPv6":        {`{"Network":"fd00::/48"}`, "Network", `"fd00::/48"`},
		"network with zeros":     {`{"Network":"010.244.0.0/16"}`, "Network", `"010.244.0.0/16"`},
		"network of everything":  {`{"Network":"0.0.0.0/0"}`, "Network", `"0.0.0.0/0"`},
		"network of one":         {`{"Network":"10.244.0.0/32"}`, "Network", `"10.244.0.0/32"`},
		"network of multicast":   {`{"Network":"224.0.0.0/16"}`, "Network", `"224.0.0.0/16"`},
		"network of loopback":    {`{"Network":"127.0.0.0/16"}`, "Network", `"127.0.0.0/16"`},
		"network is link-local":  {`{"Network":"169.254.0.0/16"}`, "Network", `"169.254.0.0/16"`},
		"IPv6 network of IPv4": {
			`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"10.0.0.0/8"}`, "IPv6Network",
			`"10.0.0.0/8"`},
		"IPv6 network is mapped": {
			`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::ffff:10.0.0.0/104"}`,
			"IPv6Network", `"::ffff:10.0.0.0/104"`},
		"IPv6 network, bad, off": {`{"Network":"10.244.0.0/16","IPv6Network":"x"}`,
			"IPv6Network", `"x"`},
		"no family": {`{"Network":"10.244.0.0/16","EnableIPv4":false}`, "EnableIPv4", "false"},
		"EnableIPv4 is text": {`{"Network":"10.244.0.0/16","EnableIPv4":"yes"}`, "EnableIPv4",
			`"yes"`},
		"EnableNFTables is text": {`{"Network":"10.244.0.0/16","EnableNFTables":"no"}`,
			"EnableNFTables", `"no"`},
		"SubnetLen is text": {`{"Network":"10.244.0.0/16","SubnetLen":"24"}`, "SubnetLen",
			`"24"`},
		"SubnetLen below zero": {`{"Network":"10.244.0.0/16","SubnetLen":-1}`, "SubnetLen", "-1"},
		"SubnetMin of IPv6": {`{"Network":"10.244.0.0/16","SubnetMin":"fd00::"}`, "SubnetMin",
			`"fd00::"`},
		"IPv6SubnetMax, a zone": {`{"Network":"10.244.0.0/16","IPv6SubnetMax":"fe80::1%eth0"}`,
			"IPv6SubnetMax", `"fe80::1%eth0"`},
		"IPv4 network of 6, off": {
			`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Network":"::/0"}`,
			"Network", `"::/0"`},
		"IPv6 network ::/0, on": {
			`{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"::/0"}`, "IPv6Network",
			`"::/0"`},
		"SubnetLen is a fraction": {`{"Network":"10.244.0.0/16","SubnetLen":24.5}`, "SubnetLen",
			"24.5"},
		"SubnetMin is empty": {`{"Network":"10.244.0.0/16","SubnetMin":""}`, "SubnetMin", `""`},
		"backend is text":    {backend(`"vxlan"`), "Backend", `"vxlan"`},
		"backend's unknown key": {backend(`{"Type":"vxlan","PSK":"secret"}`), "Backend.PSK",
			`"..."`},
		"a secret within": {backend(`["a", {"Type":"wireguard", "psk" : "se\"cret"}]`),
			"Backend", `["a", {"Type":"wireguard", "psk" : "..."}]`},
		"unknown key, other type": {backend(`{"PSK":"secret","Type":"wireguard"}`), "Backend.Type",
			`"wireguard"`},
		"GBP":      {backend(`{"Type":"vxlan","GBP":true}`), "Backend.GBP", "true"},
		"learning": {backend(`{"Type":"vxlan","Learning":true}`), "Backend.Learning", "true"},
		"MAC prefix is a number": {backend(`{"Type":"vxlan","MacPrefix":14}`),
			"Backend.MacPrefix", "14"},
		"host-gw, VNI is text": {backend(`{"Type":"host-gw","VNI":"one"}`), "Backend.VNI", `"one"`},
		"host-gw, GBP is text": {backend(`{"Type":"host-gw","GBP":"no"}`), "Backend.GBP", `"no"`},
		"backend's key twice":  {backend(`{"VNI":1,"VNI":2}`), "Backend.VNI", "2"},
		"udp":                  {backend(`{"Type":"udp"}`), "Backend.Type", `"udp"`},
		"wireguard":            {backend(`{"Type":"wireguard"}`), "Backend.Type", `"wireguard"`},
		"no type":              {backend(`{"Type":""}`), "Backend.Type", `""`},
		"VNI of 25 bits":       {backend(`{"VNI":16777216}`), "Backend.VNI", "16777216"},
		"VNI below zero":       {backend(`{"VNI":-1}`), "Backend.VNI", "-1"},
		"VNI is text":          {backend(`{"VNI":"1"}`), "Backend.VNI", `"1"`},
		"port of 17 bits":      {backend(`{"Port":65536}`), "Backend.Port", "65536"},
		"MTU too small":        {backend(`{"MTU":575}`), "Backend.MTU", "575"},
		"MTU too large":        {backend(`{"MTU":65536}`), "Backend.MTU", "65536"},
		"MTU too small for IPv6": {
			`{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"MTU":1300}}`, "Backend.MTU", "1300",
		},
		"DirectRouting is a number": {backend(`{"DirectRouting":1}`), "Backend.DirectRouting", "1"},
		"an array":                  {`[1]`, "the configuration", "[1]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := overlay.ParseConfig([]byte(test.json))
			var refused *overlay.ConfigError
			if !errors.As(err, &refused) {
				t.Fatalf("got error %v, want a ConfigError", err)
			}
			if refused.Key != test.key || refused.Value != test.value || refused.Want == "" {
				t.Errorf("got key %q, value %q, want %q; key should be %q and value %q",
					refused.Key, refused.Value, refused.Want, test.key, test.value)
			}
			if !strings.Contains(err.Error(), refused.Key) ||
				!strings.Contains(err.Error(), refused.Want) {
				t.Errorf("the message doesn't say it: %v", err)
			}
		})
	}
	for _, broken := range []string{"", " ", "{", `{"Network"`, `{"Network":`,
		`{"Network":"10.244.0.0/16"`, `{"Network":"10.244.0.0/16"} x`,
		`{"Network":"10.244.0.0/16"}{}`, "nonsense"} {
		if _, err := overlay.ParseConfig([]byte(broken)); err == nil {
			t.Errorf("%q was taken", broken)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(
		[]byte(`{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan","VNI":1,"MTU":1500}}`))
	f.Add([]byte(`{"EnableIPv4":false,"SubnetMin":"::"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := overlay.ParseConfig(data)
		if err != nil {
			return
		}
		if !c.Network.IsValid() && !c.IPv6Network.IsValid() {
			t.Errorf("no pods: %+v", c)
		}
		if c.Network != c.Network.Masked() || c.IPv6Network != c.IPv6Network.Masked() {
			t.Errorf("host bits: %+v", c)
		}
		if c.Backend != overlay.VXLAN && c.Backend != overlay.HostGW || c.VNI >= 1<<24 ||
			c.Port == 0 || c.MTU < 0 || len(c.Device()) > 15 {
			t.Errorf("impossible: %+v", c)
		}
	})
}
