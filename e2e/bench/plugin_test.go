package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// The CNI project's plugins give a pod IPv4 only. With IPv6, both wait for duplicate address
// detection, a second or more.
const (
	hostLocal = `"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.244.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}`
	ptp       = `{"type": "ptp", ` + hostLocal + `}`
	bridge    = `{"type": "bridge", "bridge": "cni0", "isGateway": true, ` + hostLocal + `}`
	ours      = `{"type": "sluice", "socket": %q, "stateDir": %q}`
)

// One pod at a time.
func BenchmarkPluginAlone(b *testing.B) {
	rounds := 60
	if long {
		rounds = 500
	}
	comparePlugins(b, rounds, 1)
}

// As many pods at once as a node gets when it comes back.
func BenchmarkPluginFiftyAtOnce(b *testing.B) {
	rounds := 3
	if long {
		rounds = 20
	}
	comparePlugins(b, rounds, 50)
}

// verb is how long calls of a verb took, in nanoseconds.
type verb struct{ wall, cpu []float64 }

// comparePlugins has each plugin in each round ADD so many pods at once, and DEL them.
func comparePlugins(b *testing.B, rounds, atOnce int) {
	b.Helper()
	programs := buildPlugins(b)
	runtimes := []*runtime{
		newRuntime(b, "ptp", programs, fmt.Sprintf(ptp, inMemory(b))),
		newRuntime(b, "bridge", programs, fmt.Sprintf(bridge, inMemory(b))),
		newSluiceRuntime(b, programs),
	}
	adds, dels := make([]verb, len(runtimes)), make([]verb, len(runtimes))
	next := 0
	for round := range rounds + 1 {
		for i := range runtimes {
			i = (i + round) % len(runtimes)
			var boxes []sandbox
			for range atOnce {
				next++
				boxes = append(boxes, newSandbox(b, next))
			}
			add, del := runtimes[i].round(b, boxes)
			if round == 0 { // everything is warm then
				continue
			}
			adds[i], dels[i] = adds[i].and(add), dels[i].and(del)
		}
	}
	for i, r := range runtimes {
		metrics := map[string]float64{}
		for name, v := range map[string]verb{"ADD": adds[i], "DEL": dels[i]} {
			metrics["ns-"+name+"-p50"], metrics["ns-"+name+"-p99"] = quantile(v.wall, 0.5),
				quantile(v.wall, 0.99)
			if atOnce == 1 {
				metrics["ns-"+name+"-CPU"] = median(v.cpu)
			}
		}
		report(b, r.name, metrics)
	}
}

func (v verb) and(more verb) verb {
	return verb{append(v.wall, more.wall...), append(v.cpu, more.cpu...)}
}

// round adds and deletes pods, all at once.
func (r *runtime) round(b *testing.B, boxes []sandbox) (add, del verb) {
	b.Helper()
	for _, box := range boxes {
		if r.know != nil {
			r.know(box)
		}
	}
	add = each(b, boxes, r.add)
	del = each(b, boxes, r.del)
	for _, box := range boxes {
		box.close(b)
	}
	return add, del
}

// each calls a verb for every pod. The time on CPUs is that of all calls together, plugins and
// agent: more than one at once share it.
func each(b *testing.B, boxes []sandbox, call func(context.Context, sandbox) error) verb {
	b.Helper()
	took := make([]float64, len(boxes))
	before := processTime(b)
	var all errgroup.Group
	for i, box := range boxes {
		all.Go(func() error {
			start := time.Now()
			err := call(b.Context(), box)
			took[i] = float64(time.Since(start))
			return err
		})
	}
	must(b, all.Wait())
	return verb{took, []float64{float64(processTime(b)-before) / float64(len(boxes))}}
}

// processTime is how long this process, and those that it has waited for, have been on a CPU.
func processTime(b *testing.B) (sum time.Duration) {
	b.Helper()
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		must(b, unix.Getrusage(who, &usage))
		sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return sum
}

// newSluiceRuntime is a runtime with Sluice's plugin, whose agent is in this process, but for the
// API server. Pods get both families, and policies.
func newSluiceRuntime(b *testing.B, programs string) *runtime {
	b.Helper()
	dir := inMemory(b)
	socket := filepath.Join(dir, cni.SocketName)
	r := newRuntime(b, "sluice", programs, fmt.Sprintf(ours, socket, dir))
	run(b, r.node, "ip link add eth0 type veth peer name eth1\nip link set eth0 up\nip link set "+
		"eth1 up\nip addr add %s/24 dev eth0\nip addr add %s/64 dev eth0 nodad",
		underlay4(0), underlay6(0))
	a := newAgent(b, r.node, 0, vxlan)
	node := nodeObject(0)
	// room for as many as there are within a cool-down
	node.Spec.PodCIDRs = []string{"10.244.0.0/16", "fd00::/64"}
	a.setNodes(node)
	a.enforcer.Update(func(c *enforcer.Model) { c.SetNamespace("bench", nil) })
	for key, spec := range map[string]string{
		"bench/deny-all": `{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		"bench/web":      `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}`,
		"bench/dns":      `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.10/32}}], ports: [{port: 53, protocol: UDP}]}]}`,
	} {
		np, err := cases.RenderPolicy(key, spec, cases.Addr)
		must(b, err)
		a.enforcer.Update(func(c *enforcer.Model) { c.SetPolicy(policy.Parse(np)) })
	}
	state := a.start(b, 0)
	startServer(b, r, a, socket, dir, state)
	r.know = func(s sandbox) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bench", Name: s.pod, UID: types.UID(s.uid),
				Labels: map[string]string{"app": "web"}},
			Spec: corev1.PodSpec{NodeName: node.Name},
		}
		a.enforcer.Update(func(c *enforcer.Model) { c.SetPod(policy.PodFrom(pod)) })
	}
	return r
}

// startServer serves the plugin, and returns when the server knows that the node can take pods.
func startServer(b *testing.B, r *runtime, a *agent, socket, dir string,
	state controllers.NetworkState) {
	b.Helper()
	netns, err := ns.GetNS(r.node.Path())
	must(b, err)
	b.Cleanup(func() { _ = netns.Close() })
	s, err := server.New(server.Options{Socket: socket, StateDir: dir, Enforcer: a.enforcer,
		Log: logr.Discard(), NetNS: netns})
	must(b, err)
	s.SetNodeAddresses([]netip.Addr{underlay4(0), underlay6(0)})
	s.SetPodCIDRs(state.PodCIDRs)
	s.SetMTU(state.MTU)
	s.SetDatapathReady(true, "")
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx) }()
	go func() { ended <- s.KeepHostEnds(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, <-ended); err != nil {
			b.Error(err)
		}
	})
	await(b, "CNI server", func() error {
		return cni.NewClient(socket).Call(ctx, cni.PathStatus, cni.StatusRequest{},
			new(cni.StatusAnswer))
	})
}
