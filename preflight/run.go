package preflight

import (
	"github.com/sluice-net/sluice/overlay"
)

// Options say what Sluice is to do on the node. All but PolicyOnly and Nodes are required.
type Options struct {
	PolicyOnly bool           // another plugin wires the pods
	Config     overlay.Config // of the pod network; of no account with PolicyOnly

	Node  string         // this node's name
	Nodes []overlay.Node // of the cluster; empty: nobody asked an API server

	BinDir, ConfDir, StateDir string // of CNI plugins and configurations, and the agent's
	SysctlDir                 string // the node's /proc/sys/net
}

// check is one check. What it needs of others it reads by itself.
type check struct {
	name string
	run  func(Options) Result
	// whether it is about a pod network of ours, or another's
	ours, others bool
}

func checks() []check {
	return []check{
		{name: "kernel", run: checkKernel},
		{name: "capabilities", run: checkCapabilities},
		{name: "nftables", run: checkNFTables},
		{name: "links", run: checkLinkKinds, ours: true},
		{name: "network", run: checkNetwork, ours: true},
		{name: "mtu", run: checkMTU, ours: true},
		{name: "tunnel", run: checkTunnel, ours: true},
		{name: "firewall", run: checkFirewall},
		{name: "leftovers", run: checkLeftovers},
		{name: "bridges", run: checkBridges, others: true},
		{name: "configurations", run: checkConfigurations},
		{name: "folders", run: checkFolders},
	}
}

// Run does the checks that the options call for, and returns what each says.
func Run(o Options) []Result {
	var results []Result
	for _, c := range checks() {
		if c.ours && o.PolicyOnly || c.others && !o.PolicyOnly {
			continue
		}
		r := c.run(o)
		r.Check = c.name
		results = append(results, r.printed())
	}
	return results
}
