package overlay_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-net/sluice/overlay"
)

// form is a net-conf.json that somebody uses, with what it means here or the key by which it is
// refused.
type form struct {
	source  string // where it comes from; what templates leave open is filled in
	json    string
	want    overlay.Config
	refused string
}

// vxlanOn is what most forms mean.
func vxlanOn(network string, changes ...func(*overlay.Config)) overlay.Config {
	c := overlay.Config{Backend: overlay.VXLAN, VNI: 1, Port: 8472}
	if network != "" {
		c.Network = netip.MustParsePrefix(network)
	}
	for _, change := range changes {
		change(&c)
	}
	return c
}

func and6(network string) func(*overlay.Config) {
	return func(c *overlay.Config) { c.IPv6Network = netip.MustParsePrefix(network) }
}

func at(vni uint32, port uint16) func(*overlay.Config) {
	return func(c *overlay.Config) { c.VNI, c.Port = vni, port }
}

func underlayMTU(n int) func(*overlay.Config) { return func(c *overlay.Config) { c.MTU = n } }
func directly(c *overlay.Config)              { c.DirectRouting = true }
func hostGW(c *overlay.Config)                { c.Backend = overlay.HostGW }

var forms = []form{
	{
		source: "flannel-io/flannel, Documentation/kube-flannel.yml",
		json:   `{"Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": {"Type": "vxlan"}}`,
		want:   vxlanOn("10.244.0.0/16"),
	}, {
		source: "flannel-io/flannel, chart/kube-flannel/templates/config.yaml, dual stack with " +
			"every value of vxlan but GBP",
		json: `{"Network": "10.244.0.0/16", "IPv6Network": "2001:cafe:42::/56", "EnableIPv6": true,
			"Backend": {"Port": 8472, "VNI": 1, "DirectRouting": true, "MTU": 1500, "MacPrefix": "0E-2A", "Type": "vxlan"}}`,
		want: vxlanOn("10.244.0.0/16", and6("2001:cafe:42::/56"), directly, underlayMTU(1500)),
	}, {
		source:  "flannel-io/flannel, chart/kube-flannel/templates/config.yaml, with GBP",
		json:    `{"Network": "10.244.0.0/16", "Backend": {"Port": 0, "GBP": true, "Type": "vxlan"}}`,
		refused: "Backend.GBP",
	}, {
		source:  "flannel-io/flannel, chart/kube-flannel/templates/config.yaml, WireGuard",
		json:    `{"Network": "10.244.0.0/16", "Backend": {"ListenPort": 51820, "PSK": "", "PersistentKeepaliveInterval": 0, "Type": "wireguard"}}`,
		refused: "Backend.Type",
	}, {
		source: "flannel-io/flannel, pkg/subnet/config_test.go",
		json: `{ "EnableIPv6": true, "IPv6Network": "fc00::/48", "IPv6SubnetMin": "fc00:0:0:1::", "IPv6SubnetMax": "fc00:0:0:f::",
			"IPv6SubnetLen": 124, "enableIPv4": false }`,
		want: vxlanOn("", and6("fc00::/48")),
	}, {
		source:  "flannel-io/flannel, Documentation/configuration.md",
		json:    `{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0", "Backend": {"Type": "udp", "Port": 7890}}`,
		refused: "Backend.Type",
	}, {
		source:  "flannel-io/flannel, Documentation/kube-flannel-aliyun.yml",
		json:    `{"Network": "10.24.0.0/16", "Backend": {"Type": "ali-vpc"}}`,
		refused: "Backend.Type",
	}, {
		source: "projectcalico/calico, manifests/canal.yaml",
		json:   `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}`,
		want:   vxlanOn("10.244.0.0/16"),
	}, {
		source: "k3s-io/k3s, pkg/agent/flannel/setup.go, IPv4 alone",
		json:   `{"Network": "10.42.0.0/16", "EnableIPv6": false, "EnableIPv4": true, "IPv6Network": "::/0", "Backend": {"Type": "vxlan"}}`,
		want:   vxlanOn("10.42.0.0/16"),
	}, {
		source: "k3s-io/k3s, pkg/agent/flannel/setup.go, IPv6 alone",
		json:   `{"Network": "0.0.0.0/0", "EnableIPv6": true, "EnableIPv4": false, "IPv6Network": "2001:cafe:42::/56", "Backend": {"Type": "vxlan"}}`,
		want:   vxlanOn("", and6("2001:cafe:42::/56")),
	}, {
		source: "k3s-io/k3s, pkg/agent/flannel/setup_test.go, dual stack",
		json:   `{"Network": "10.42.0.0/16", "EnableIPv6": true, "EnableIPv4": true, "IPv6Network": "2001:cafe:22::/56", "Backend": {"Type": "vxlan"}}`,
		want:   vxlanOn("10.42.0.0/16", and6("2001:cafe:22::/56")),
	}, {
		source: "k3s-io/k3s, pkg/agent/flannel/setup.go, --flannel-backend=host-gw",
		json:   `{"Network": "10.42.0.0/16", "EnableIPv6": false, "EnableIPv4": true, "IPv6Network": "::/0", "Backend": {"Type": "host-gw"}}`,
		want:   vxlanOn("10.42.0.0/16", hostGW),
	}, {
		source: "k3s-io/k3s, pkg/agent/flannel/setup.go, --flannel-backend=wireguard-native",
		json: `{"Network": "10.42.0.0/16", "EnableIPv6": false, "EnableIPv4": true, "IPv6Network": "::/0",
			"Backend": {"Type": "wireguard", "PersistentKeepaliveInterval": 25}}`,
		refused: "Backend.Type",
	}, {
		source: "k3s-io/k3s, pkg/agent/flannel/setup.go, --flannel-backend=tailscale",
		json: `{"Network": "10.42.0.0/16", "EnableIPv6": false, "EnableIPv4": true, "IPv6Network": "::/0", "Backend": {"Type": "extension",
			"PostStartupCommand": "tailscale set --accept-routes --advertise-routes=$SUBNET", "ShutdownCommand": "tailscale down"}}`,
		refused: "Backend.Type",
	}, {
		source: "a K3s user's --flannel-conf, over a link of 1280 bytes",
		json: `{"Network": "10.42.0.0/16", "EnableIPv6": false, "EnableIPv4": true, "IPv6Network": "::/0",
			"Backend": {"Type": "vxlan", "VNI": 1, "Port": 8472, "MTU": 1280}}`,
		want: vxlanOn("10.42.0.0/16", underlayMTU(1280)),
	}, {
		source: "a K3s user's --flannel-conf, for a kernel without VXLAN",
		json:   `{"Network": "10.42.0.0/16", "SubnetLen": 20, "SubnetMin": "10.42.0.0", "SubnetMax": "10.42.64.0", "Backend": {"Type": "host-gw", "Port": 7890}}`,
		want:   vxlanOn("10.42.0.0/16", hostGW),
	}, {
		source: "rancher/rke, templates/canal.go",
		json:   `{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1, "Port": 8472}}`,
		want:   vxlanOn("10.42.0.0/16"),
	}, {
		source: "rancher/rke, templates/flannel.go, flannel_backend_type: host-gw",
		json:   `{"Network": "10.42.0.0/16", "EnableNFTables": false, "Backend": {"Type": "host-gw", "VNI": 1, "Port": 8472}}`,
		want:   vxlanOn("10.42.0.0/16", hostGW),
	}, {
		source: "kubernetes-sigs/kubespray, " +
			"roles/network_plugin/flannel/templates/cni-flannel.yml.j2, host-gw",
		json: `{"Network": "10.233.64.0/18", "Backend": {"Type": "host-gw"}}`,
		want: vxlanOn("10.233.64.0/18", hostGW),
	}, {
		source: "kubernetes-sigs/kubespray, " +
			"roles/network_plugin/flannel/templates/cni-flannel.yml.j2, vxlan",
		json: `{"Network": "10.233.64.0/18", "Backend": {"Type": "vxlan", "VNI": 1, "Port": 8472, "DirectRouting": false}}`,
		want: vxlanOn("10.233.64.0/18"),
	}, {
		source: "kubernetes/kops, " +
			"upup/models/cloudup/resources/addons/networking.flannel/k8s-1.12.yaml.template",
		json: `{"Network": "100.64.0.0/10", "Backend": {"Type": "vxlan"}}`,
		want: vxlanOn("100.64.0.0/10"),
	}, {
		source: "siderolabs/talos, internal/.../k8stemplates/testdata/flannel-configmap-v6.yaml",
		json: `{"IPv6Network": "fd00::/112", "EnableIPv6": true, "EnableIPv4": false, "EnableNFTables": true,
			"Backend": {"Port": 4789, "Type": "vxlan"}}`,
		want: vxlanOn("", and6("fd00::/112"), at(1, 4789)),
	}, {
		source: "siderolabs/talos, internal/.../testdata/flannel-configmap-with-mtu.yaml",
		json:   `{"Network": "10.96.0.0/12", "EnableNFTables": true, "Backend": {"MTU": 1420, "Port": 4789, "Type": "vxlan"}}`,
		want:   vxlanOn("10.96.0.0/12", at(1, 4789), underlayMTU(1420)),
	}, {
		source: "poseidon/terraform-render-bootstrap, resources/flannel/config.yaml",
		json:   `{"Network": "10.2.0.0/16", "Backend": {"Type": "vxlan", "Port": 8472}}`,
		want:   vxlanOn("10.2.0.0/16"),
	}, {
		source: "Kubernetes' guide for Windows nodes",
		json:   `{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI" : 4096, "Port": 4789}}`,
		want:   vxlanOn("10.244.0.0/16", at(4096, 4789)),
	}, {
		source: "microsoft/SDN, Kubernetes/flannel/l2bridge/net-conf.json",
		json:   `{"Network": "10.244.0.0/16", "Backend": {"name": "cbr0", "type": "host-gw"}}`,
		want:   vxlanOn("10.244.0.0/16", hostGW),
	}, {
		source: "microsoft/SDN, Kubernetes/flannel/overlay/net-conf.json",
		json:   `{"Network": "192.168.0.0/16", "Backend": {"name": "vxlan0", "type": "vxlan"}}`,
		want:   vxlanOn("192.168.0.0/16"),
	}, {
		source: "OpenStack Magnum's script for flannel",
		json:   `{"Network": "10.100.0.0/16", "Subnetlen": 24, "Backend": {"Type": "vxlan"}}`,
		want:   vxlanOn("10.100.0.0/16"),
	}, {
		source: "m-lab/k8s-support, config/flannel.jsonnet",
		json:   `{"Backend": {"Type": "vxlan"}, "Network": "192.168.0.0/16", "SubnetLen": 26}`,
		want:   vxlanOn("192.168.0.0/16"),
	}, {
		source: "kubeasz's users",
		json:   `{"Network": "172.20.0.0/16", "Backend": {"Type": "VxLAN", "Directrouting": true}}`,
		want:   vxlanOn("172.20.0.0/16", directly),
	}, {
		source: "a guide in etcd's days, with the VNI that few take",
		json:   `{"Network":"10.0.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan","VNI":0}}`,
		want:   vxlanOn("10.0.0.0/16", at(0, 8472)),
	}, {
		source: "a guide in etcd's days, with host bits",
		json:   `{"Network":"10.244.0.0/12", "SubnetLen": 21, "Backend": {"Type": "vxlan", "DirectRouting": true}}`,
		want:   vxlanOn("10.240.0.0/12", directly),
	}, {
		source: "a guide to backends, with everything that is off spelled out",
		json:   `{"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1, "Port": 4789, "GBP": false, "DirectRouting": false}}`,
		want:   vxlanOn("10.1.0.0/16", at(1, 4789)),
	}, {
		source: "a guide to dual stack, with subnets outside the network",
		json: `{"Network": "10.0.0.0/8", "EnableIPv4": true, "SubnetLen": 24, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0",
			"IPv6Network": "2001:db8::/64", "EnableIPv6": true, "IPv6SubnetLen": 64, "IPv6SubnetMin": "2001:db8:1::",
			"IPv6SubnetMax": "2001:db8:ffff::", "Backend": {"Type": "vxlan", "VNI": 1}}`,
		want: vxlanOn("10.0.0.0/8", and6("2001:db8::/64")),
	}, {
		source:  "a guide with a subnet as SubnetMin, which flannel refuses too",
		json:    `{"Network": "10.244.0.0/16", "SubnetLen": 24, "SubnetMin": "10.244.10.0/24", "Backend": {"Type": "vxlan", "Directrouting": true}}`,
		refused: "SubnetMin",
	}, {
		source:  "a guide with two networks in one, which flannel refuses too",
		json:    `{"Network": "10.244.0.0/16,2001:db8::/64", "Backend": {"Type": "vxlan", "VNI": 1, "Port": 4789}}`,
		refused: "Network",
	}, {
		source: "a cluster with a key that flannel doesn't have, and leaves out in silence",
		json: `{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd76:cac2:6150::/56", "IPv6Subnet": "fd76:cac2:6150::1/64",
			"EnableNFTables": false, "Backend": {"Type": "vxlan"}}`,
		refused: "IPv6Subnet",
	},
}

// What people have as their net-conf.json is read as flannel reads it.
func TestFormsInUse(t *testing.T) {
	t.Parallel()
	for _, form := range forms {
		t.Run(form.source, func(t *testing.T) {
			t.Parallel()
			got, err := overlay.ParseConfig([]byte(form.json))
			if refused := new(overlay.ConfigError); form.refused != "" {
				if !errors.As(err, &refused) || refused.Key != form.refused {
					t.Fatalf("got %v, want %s refused", err, form.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			diff := cmp.Diff(form.want, got, cmpopts.EquateComparable(netip.Prefix{}))
			if diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What has no effect changes nothing, whatever it is, as long as it can be read.
func TestKeysWithoutEffect(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ with, without string }{
		"subnets": {
			`{"Network":"10.244.0.0/16","SubnetLen":15,"SubnetMin":"10.245.9.0","SubnetMax":"10.245.8.0","IPv6SubnetLen":300,"IPv6SubnetMin":"fd00::","IPv6SubnetMax":"1.2.3.4"}`,
			`{"Network":"10.244.0.0/16"}`,
		},
		"IPv6 that is off": {`{"Network":"10.244.0.0/16","IPv6Network":"fe80::/10"}`,
			`{"Network":"10.244.0.0/16"}`},
		"IPv4 that is off": {
			`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Network":"127.0.0.1/32"}`,
			`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}`,
		},
		"null": {
			`{"Network":"10.244.0.0/16","EnableIPv4":null,"EnableIPv6":null,"IPv6Network":null,"SubnetMin":null,"Backend":{"Type":null,"VNI":null,"MTU":null}}`,
			`{"Network":"10.244.0.0/16","Backend":null}`,
		},
		"a tunnel with host-gw": {
			`{"Network":"10.244.0.0/16","Backend":{"Type":"Host-GW","VNI":-7,"Port":99999,"DirectRouting":true,"GBP":true,"Learning":true}}`,
			`{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}`,
		},
		"for Windows": {
			`{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw","Name":"cbr0","DNSServerList":"10.96.0.10","MacPrefix":"0E-2A"}}`,
			`{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}`,
		},
		"the kernel's port": {`{"Network":"10.244.0.0/16","Backend":{"Port":0}}`,
			`{"Network":"10.244.0.0/16"}`},
		"what the tunnel does": {
			`{"Network":"10.244.0.0/16","Backend":{"GBP":false,"Learning":false}}`,
			`{"Network":"10.244.0.0/16"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			with, err := overlay.ParseConfig([]byte(test.with))
			if err != nil {
				t.Fatal(err)
			}
			without, err := overlay.ParseConfig([]byte(test.without))
			if err != nil {
				t.Fatal(err)
			}
			if with != without {
				t.Errorf("got %+v, want %+v", with, without)
			}
		})
	}
}
