package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/overlay/reach"
)

// options are the agent's flags.
type options struct {
	node, kubeconfig, stateDir, socket, httpAddress, podToNode string
	logGroup, logPerSecond                                     uint

	policyOnly  bool
	unknownPods string
	ownTable    bool

	cutEstablished bool
	cutLabel       uint
	verify         string
	profiling      bool

	netConf, underlayFamily, masqueradeToNodes string
	masquerade, forwardAccept                  bool
	forbiddenHostPorts                         string

	cniConfDir, subnetFile, sysctlDir, runDir string
	cniExclusive                              bool
	coolDown, tunnelProbeInterval, apiSilence time.Duration

	zap zap.Options
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("sluice-agent", flag.ContinueOnError)
	fs.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"),
		"name of this node's object (required; default $NODE_NAME)")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; empty inside a cluster")
	fs.StringVar(&o.stateDir, "state-dir", cni.DefaultStateDir,
		"where attachments are recorded, on tmpfs if possible")
	fs.StringVar(&o.socket, "socket", "", "socket of the CNI server (default STATE-DIR/cni.sock)")
	fs.StringVar(&o.httpAddress, "http-address", "127.0.0.1:9808",
		"where /healthz, /readyz and /metrics are served; 0: nowhere")
	fs.BoolVar(&o.profiling, "profiling", false,
		"serve /debug/pprof/ at --http-address: what the agent does, and what its memory is for")
	fs.DurationVar(&o.apiSilence, "api-silence", 3*time.Minute,
		"how long the API server, which sends something in each watch each minute, may send "+
			"nothing before it is asked anew")
	o.policyFlags(fs)
	o.networkFlags(fs)
	o.zap.BindFlags(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("argument %q: expected flags only, or a command (why, verify, "+
			"check, install, uninstall, version)", fs.Arg(0))
	}
	if o.socket == "" {
		o.socket = filepath.Join(o.stateDir, cni.SocketName)
	}
	return o, o.check()
}

func (o *options) policyFlags(fs *flag.FlagSet) {
	fs.StringVar(&o.podToNode, "pod-to-node", "policy",
		"traffic from a pod to its own node: policy (judged as egress) or allow")
	fs.UintVar(&o.logGroup, "log-group", defaultLogGroup, "NFLOG group by which samples of "+
		"denied packets come to the agent; no other process may read it")
	fs.UintVar(&o.logPerSecond, "log-per-second", 10, "denied packets that are logged, for each "+
		"pod, at most (from 2, for two directions); 0: none")
	fs.BoolVar(&o.ownTable, "own-table", true, "keep other programs from changing or flushing "+
		"table inet sluice, where the kernel can (Linux 6.9)")
	fs.BoolVar(&o.cutEstablished, "cut-established", true, "cut connections that policy comes to "+
		"deny while they exist; false: they go on until they end")
	fs.UintVar(&o.cutLabel, "cut-label", 127, "bit of connections' labels, 1 to 127, that says "+
		"which are cut, if another program uses the last one")
	fs.StringVar(&o.verify, "verify", "continuous",
		"hold what the kernel does against what the policies mean: continuous (with 1 % of a "+
			"core) or off; sluice-agent verify asks for it")
	fs.BoolVar(&o.policyOnly, "policy-only", false,
		"enforce policy on pods that another CNI plugin wires, and make no pod network")
	fs.StringVar(&o.unknownPods, "unknown-pods", "drop",
		"with --policy-only, what becomes of traffic of addresses in the node's podCIDRs that "+
			"aren't a known pod's: drop or allow")
}

func (o *options) networkFlags(fs *flag.FlagSet) {
	fs.StringVar(&o.netConf, "net-conf", "/etc/sluice/net-conf.json",
		"configuration of the pod network, as flannel's; read again when it changes")
	fs.StringVar(&o.underlayFamily, "underlay-family", "", "address family of the tunnel: ipv4 "+
		"or ipv6; empty: what all nodes derive from the Node objects")
	fs.BoolVar(&o.masquerade, "ip-masq", true,
		"give what pods send out of the pod network the node's address")
	fs.StringVar(&o.masqueradeToNodes, "masquerade-to-nodes", string(controllers.MasqueradeAuto),
		"the same for what pods send to nodes: auto (unless the node's pods are reached without "+
			"a tunnel), always or never")
	fs.BoolVar(&o.forwardAccept, "forward-accept", false,
		"keep a rule in others' FORWARD or DOCKER-USER chain that accepts the pod network")
	fs.DurationVar(&o.tunnelProbeInterval, "tunnel-probe-interval", reach.DefaultInterval,
		"how often each node is asked whether the tunnel carries packets there and back, while "+
			"it answers; 0: never")
	fs.StringVar(&o.forbiddenHostPorts, "forbidden-host-ports",
		"10250/tcp,6443/tcp,2379/tcp,2380/tcp,agent,tunnel",
		"ports of the node that no pod gets as a host port, such as 10250/tcp; agent: that of "+
			"--http-address; tunnel: that of net-conf.json")
	fs.StringVar(&o.cniConfDir, "cni-conf-dir", "/etc/cni/net.d",
		"where the CNI configuration is written once the node can take pods; empty: nowhere")
	fs.DurationVar(&o.coolDown, "address-cool-down", time.Minute,
		"how long a pod's address rests before another pod gets it: long enough for every node "+
			"to learn that the pod is gone")
	fs.BoolVar(&o.cniExclusive, "cni-exclusive", false,
		"take plugins out that others append to the CNI configuration, such as a mesh's")
	fs.StringVar(&o.subnetFile, "subnet-file", "/run/flannel/subnet.env",
		"where the node's subnet is written for other tools; empty: nowhere")
	fs.StringVar(&o.sysctlDir, "sysctl-dir", "/proc/sys/net",
		"where the node's network sysctls can be written")
	fs.StringVar(&o.runDir, "run-dir", "/run", "where files make NetworkManager and "+
		"systemd-networkd leave our links alone; empty: nowhere")
}

// defaultLogGroup is a group that no other program is known to use.
const defaultLogGroup = 5185

// maxLogPerSecond is more than the agent logs a second for all pods together.
const maxLogPerSecond = 1000

// Of --tunnel-probe-interval. With the longest, a silent node is reported after half an hour.
const shortestProbeInterval, longestProbeInterval = time.Second, 10 * time.Minute

// minAPISilence is longer than an API server is silent in a watch.
const minAPISilence = 90 * time.Second

// check returns an error that names the first flag with an invalid value.
func (o *options) check() error {
	if o.node == "" {
		return errors.New("--node-name: expected the name of this node's object")
	}
	for _, f := range []struct {
		name, value string
		allowed     []string
	}{
		{"--pod-to-node", o.podToNode, []string{"policy", "allow"}},
		{"--verify", o.verify, []string{"continuous", "off"}},
		{"--unknown-pods", o.unknownPods, []string{"drop", "allow"}},
		{"--underlay-family", o.underlayFamily, []string{"", "ipv4", "ipv6"}},
		{"--masquerade-to-nodes", o.masqueradeToNodes, []string{"auto", "always", "never"}},
	} {
		if !slices.Contains(f.allowed, f.value) {
			return fmt.Errorf("%s=%q: expected one of %q", f.name, f.value, f.allowed)
		}
	}
	if _, _, err := o.reservedPorts(); err != nil {
		return err
	}
	if o.coolDown <= 0 {
		return fmt.Errorf("--address-cool-down=%s: expected more than 0", o.coolDown)
	}
	i := o.tunnelProbeInterval
	if i != 0 && (i < shortestProbeInterval || i > longestProbeInterval) {
		return fmt.Errorf("--tunnel-probe-interval=%s: expected %s to %s, or 0", i,
			shortestProbeInterval, longestProbeInterval)
	}
	if o.apiSilence < minAPISilence {
		return fmt.Errorf(
			"--api-silence=%s: expected at least %s, as an API server may be silent for a minute",
			o.apiSilence, minAPISilence)
	}
	if o.cutLabel < 1 || o.cutLabel > 127 {
		return fmt.Errorf("--cut-label=%d: expected 1 to 127", o.cutLabel)
	}
	if o.logGroup > 65535 {
		return fmt.Errorf("--log-group=%d: expected at most 65535", o.logGroup)
	}
	if o.logPerSecond > maxLogPerSecond {
		return fmt.Errorf("--log-per-second=%d: expected at most %d", o.logPerSecond,
			maxLogPerSecond)
	}
	return nil
}

// forgetEvery is the least time between two removals of connections of pods that have left: a few
// fit into an address's rest. Other plugins' addresses may not rest.
func (o *options) forgetEvery() time.Duration {
	if o.policyOnly {
		return 0
	}
	const often = 6
	return o.coolDown / often
}

func (o *options) underlay() overlay.Family {
	switch o.underlayFamily {
	case "ipv4":
		return overlay.IPv4
	case "ipv6":
		return overlay.IPv6
	}
	return overlay.AnyFamily
}
