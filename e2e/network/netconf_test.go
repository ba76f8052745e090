package network

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/capture"
)

// The configuration changes while the agents run. The tunnel and new pods follow at once; pods and
// connections that there are go on, with DF set, by path MTU discovery where they have a larger MTU
// than the path.
func TestConfigurationChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "netconf", lab.Options{})
	var lasting []*stream // of all pods so far
	born := func(w *world, mtu int) {
		w.t.Helper()
		client, server := fmt.Sprintf("default/client%d", len(lasting)),
			fmt.Sprintf("default/server%d", len(lasting))
		w.create("node1", client)
		w.create("node2", server)
		w.waitReady(client, server)
		w.talk(client, server)
		w.carries(client, server, mtu)
		// to the end of the whole test
		streams := (&world{Lab: w.Lab, t: t}).openAll(client, server)
		carry(w.t, "new pods", streams...)
		lasting = append(lasting, streams...)
		// And from new pods to the oldest, whose MTU may be another.
		carry(w.t, "new pods to old ones", w.openAll(client, "default/server0")...)
		carry(w.t, "old pods to new ones", w.openAll("default/client0", server)...)
	}
	vxlanMTU := underlayMTU - overhead4
	born(w, vxlanMTU)
	for _, change := range []struct {
		name  string
		to    lab.Backend
		mtu   int // Backend.MTU; 0: not given
		pods  int // their MTU
		cable int // MTU of the tunnel; 0: there is none
	}{
		{"from VXLAN to host-gw", lab.HostGW, 0, underlayMTU, 0},
		{"from host-gw to VXLAN", lab.VXLAN, 0, vxlanMTU, vxlanMTU},
		{"the MTU from 1500 to 1400", lab.VXLAN, 1400, 1400 - overhead4, 1400 - overhead4},
		{"the MTU from 1400 to 1500", lab.VXLAN, 1500, vxlanMTU, vxlanMTU},
	} {
		w.part(change.name, func(w *world) {
			carry(w.t, "before", lasting...)
			must(w.t, w.EditNetConf(func(conf map[string]any) {
				backend := map[string]any{"Type": string(change.to)}
				if change.mtu != 0 {
					backend["MTU"] = change.mtu
				}
				conf["Backend"] = backend
			}))
			took := w.eventually(settleTime, "the tunnels of both nodes to follow", func() bool {
				return w.linkMTU("node1", tunnel) == change.cable &&
					w.linkMTU("node2", tunnel) == change.cable
			})
			w.t.Logf("the tunnels followed after %s", took)
			w.awaitPodMTU(change.pods)
			fragments, err := w.Capture("node1", uplink, func(p capture.Packet) bool {
				return p.Fragment || p.Innermost().Fragment
			})
			must(w.t, err)
			carry(w.t, "after", lasting...)
			pieces, err := fragments.Stop()
			must(w.t, err)
			if len(pieces) > 0 {
				w.t.Errorf("there were %d fragments, such as %s", len(pieces), pieces[0])
			}
			if mtu := w.linkMTU("default/client0", "eth0"); mtu != vxlanMTU {
				w.t.Errorf("a pod that runs has an MTU of %d now, want %d as before", mtu, vxlanMTU)
			}
			born(w, change.pods)
		})
	}
	w.part("the VNI and the port", func(w *world) { w.changesTunnel(lasting, 7, 4789) })
	w.part("an invalid configuration is refused", func(w *world) {
		w.refusesConfiguration(lasting, vxlanMTU)
	})
}

// changesTunnel: with another VNI there is another device in the place of the tunnel, and packets
// go to another port.
func (w *world) changesTunnel(lasting []*stream, vni, port int) {
	w.t.Helper()
	use := func(vni, port int, device, gone string) {
		w.t.Helper()
		must(w.t, w.EditNetConf(func(conf map[string]any) {
			conf["Backend"] = map[string]any{"Type": "vxlan", "VNI": vni, "Port": port}
		}))
		w.eventually(settleTime, "device "+device+" in the place of "+gone, func() bool {
			done := true
			for _, node := range w.NodeNames() {
				done = done && w.linkMTU(node, device) > 0 && w.linkMTU(node, gone) == 0
			}
			return done
		})
		capture, err := w.Capture("node1", uplink, func(p capture.Packet) bool {
			return p.Protocol == unix.IPPROTO_UDP && int(p.Dst.Port()) == port
		})
		must(w.t, err)
		carry(w.t, fmt.Sprintf("with VNI %d and port %d", vni, port), lasting...)
		w.talk("default/client0", "default/server0")
		packets, err := capture.Stop()
		must(w.t, err)
		if len(packets) == 0 {
			w.t.Errorf("nothing went to port %d", port)
		}
	}
	use(vni, port, fmt.Sprintf("sluice.%d", vni), tunnel)
	use(1, capture.VXLANPort, tunnel, fmt.Sprintf("sluice.%d", vni))
}

// refusesConfiguration: an event reports an invalid configuration and names the key, and all goes
// on as before.
func (w *world) refusesConfiguration(lasting []*stream, mtu int) {
	w.t.Helper()
	before := w.state("node1")
	for key, value := range map[string]any{"Type": "wireguard", "VNI": 1 << 24, "Colour": "blue"} {
		must(w.t, w.EditNetConf(func(conf map[string]any) {
			conf["Backend"] = map[string]any{key: value}
		}))
		for _, node := range w.NodeNames() {
			note := w.event(node, "InvalidNetworkConfig", "Backend."+key)
			w.t.Logf("%s: %s", node, note)
		}
	}
	must(w.t, w.SetNetConf("{"))
	w.t.Log(w.event("node1", "InvalidNetworkConfig", "as JSON"))
	if n := w.metric("node1", "sluice_network_ready"); n != 0 {
		w.t.Errorf("sluice_network_ready is %v, want 0", n)
	}
	if after := w.state("node1"); after != before {
		w.t.Errorf("the node was changed, from\n%s\nto\n%s", before, after)
	}
	carry(w.t, "with an invalid configuration", lasting...)
	w.run("node1", "default/late")
	w.talk("default/late", "default/server0")
	w.carries("default/late", "default/server0", mtu)

	// An agent that starts with it goes on with the last that was valid.
	node := w.Node("node1")
	node.KillAgent()
	must(w.t, node.StartAgent())
	ctx, cancel := context.WithTimeout(w.t.Context(), settleTime)
	defer cancel()
	w.eventually(settleTime, "the agent to start with the last valid configuration", func() bool {
		return w.metric("node1", "sluice_network_peers") == 1
	})
	carry(w.t, "with an invalid configuration, after the agent's restart", lasting...)

	must(w.t, w.SetNetConf(strings.ReplaceAll(validConf, "'", `"`)))
	must(w.t, node.WaitReady(ctx))
	for _, name := range w.NodeNames() {
		w.eventually(settleTime, name+" to take a valid configuration", func() bool {
			return w.metric(name, "sluice_network_ready") == 1
		})
	}
	carry(w.t, "with a valid configuration again", lasting...)
}

const validConf = `{'Network': '10.244.0.0/16', 'EnableIPv6': true, 'IPv6Network': 'fd00:10:244::/48', 'Backend': {'Type': 'vxlan', 'VNI': 1}}`
