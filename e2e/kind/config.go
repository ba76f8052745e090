package kind

import (
	"fmt"
	"strings"
)

// Family is the address families of a cluster, in kind's words.
type Family string

// The families that clusters can have.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
	Dual Family = "dual"
)

// ProxyMode is how kube-proxy works.
type ProxyMode string

// The modes of kube-proxy that Sluice is tested with.
const (
	NFTables ProxyMode = "nftables"
	IPTables ProxyMode = "iptables"
)

// The pod networks are kind's own defaults. nodeMaskV4 leaves a node 126 addresses, so that a test
// can use them up.
const (
	podsV4     = "10.244.0.0/16"
	podsV6     = "fd00:10:244::/56"
	nodeMaskV4 = 25
	nodeMaskV6 = 64
)

// check names the option that makes no sense.
func (o Options) check() error {
	switch o.Family {
	case IPv4, IPv6, Dual:
	default:
		return fmt.Errorf("family %q: expected %s, %s or %s", o.Family, IPv4, IPv6, Dual)
	}
	switch o.Proxy {
	case NFTables, IPTables:
	default:
		return fmt.Errorf("mode of kube-proxy %q: expected %s or %s", o.Proxy, NFTables, IPTables)
	}
	if o.Workers < 1 {
		return fmt.Errorf("%d workers: expected at least 1", o.Workers)
	}
	return nil
}

// config is what kind makes the cluster of: https://kind.sigs.k8s.io/docs/user/configuration/.
func (o Options) config(image Image) string {
	var b strings.Builder
	pods, masks := podsV4, []string{"node-cidr-mask-size", fmt.Sprint(nodeMaskV4)}
	switch o.Family {
	case IPv4:
	case IPv6:
		pods, masks = podsV6, []string{"node-cidr-mask-size", fmt.Sprint(nodeMaskV6)}
	case Dual:
		pods = podsV4 + "," + podsV6
		masks = []string{"node-cidr-mask-size-ipv4", fmt.Sprint(nodeMaskV4),
			"node-cidr-mask-size-ipv6", fmt.Sprint(nodeMaskV6)}
	}
	fmt.Fprintf(&b, `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  disableDefaultCNI: true
  kubeProxyMode: %s
  ipFamily: %s
  podSubnet: %s
`, o.Proxy, o.Family, pods)
	if !image.Stock {
		// Hosts where it has to be built may have cgroups of version 1.
		b.WriteString(
			"kubeadmConfigPatches:\n- |\n  kind: KubeletConfiguration\n  failCgroupV1: false\n")
	}
	b.WriteString("kubeadmConfigPatchesJSON6902:\n- group: kubeadm.k8s.io\n  version: v1beta4\n  " +
		"kind: ClusterConfiguration\n  patch: |\n")
	for i := 0; i < len(masks); i += 2 {
		fmt.Fprintf(&b,
			"    - {op: add, path: /controllerManager/extraArgs/-, value: {name: %s, value: %q}}\n",
			masks[i], masks[i+1])
	}
	fmt.Fprintf(&b, "nodes:\n- {role: control-plane, image: %q}\n", image.Name)
	for range o.Workers {
		fmt.Fprintf(&b, "- {role: worker, image: %q}\n", image.Name)
	}
	return b.String()
}

// netConf is the pod network's configuration for the families, in the form of flannel's.
func (o Options) netConf() string {
	switch o.Family {
	case IPv6:
		return `{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "` + podsV6 +
			`", "Backend": {"Type": "vxlan"}}`
	case Dual:
		return `{"Network": "` + podsV4 + `", "EnableIPv6": true, "IPv6Network": "` + podsV6 +
			`", "Backend": {"Type": "vxlan"}}`
	default:
		return `{"Network": "` + podsV4 + `", "Backend": {"Type": "vxlan"}}`
	}
}
