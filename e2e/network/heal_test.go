package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/e2e/lab"
)

// healTime is how long what was altered by hand may stay so.
const healTime = 2 * time.Second

// fault is something done by hand to a node. In it, TUNNEL is the tunnel device, VETH the host end
// of a pod, PEER the MAC of another node's tunnel device, ADDR4 and ADDR6 the pod's addresses.
type fault struct {
	name    string
	command string
	// over how many families pods of the node connect to those of another all the same, before it
	// heals
	works int
}

var faults = []fault{
	{"the tunnel device is deleted", "ip link del TUNNEL", 0},
	{"the tunnel device is set down", "ip link set TUNNEL down", 0},
	{"the tunnel device is set down and up", "ip link set TUNNEL down; ip link set TUNNEL up", 0},
	{"the tunnel device has another MAC", "ip link set TUNNEL address 02:00:00:00:00:99", 0},
	{"the tunnel device has another MTU", "ip link set TUNNEL mtu 1300", 2},
	{"the tunnel device has lost its addresses", "ip addr flush dev TUNNEL", 1},
	{"another VXLAN device is in its place",
		"ip link del TUNNEL; ip link add TUNNEL type vxlan id 77 dev eth0 dstport 8472", 0},
	{"routes between nodes are flushed", "ip route flush proto 84; ip -6 route flush proto 84", 0},
	{"a route leads elsewhere", "ip route replace 10.244.2.0/24 via 192.168.0.250 proto 84; ip " +
		"-6 route replace fd00:10:244:2::/64 via fd00:192:168::250 proto 84", 0},
	{"neighbours of the tunnel are flushed",
		"ip neigh flush dev TUNNEL nud all; ip -6 neigh flush dev TUNNEL nud all", 0},
	{"the forwarding database has lost an entry", "bridge fdb del PEER dev TUNNEL", 0},
	{"the forwarding database leads elsewhere",
		"bridge fdb replace PEER dev TUNNEL dst 192.168.0.250", 0},
	{"a stranger is in the forwarding database",
		"bridge fdb add 02:00:00:00:00:98 dev TUNNEL dst 192.168.0.250", 2},
	{"a pod's link is set down", "ip link set VETH down", 0},
	{"a pod's link is set down and up", "ip link set VETH down; ip link set VETH up", 0},
	{"a pod's routes are flushed", "ip route flush dev VETH; ip -6 route flush dev VETH", 0},
	{"a pod's neighbours are deleted",
		"ip neigh flush dev VETH nud all; ip -6 neigh flush dev VETH nud all", 0},
	{"a pod's neighbours have another MAC", "ip neigh change ADDR4 dev VETH lladdr " +
		"02:00:00:00:00:97; ip neigh change ADDR6 dev VETH lladdr 02:00:00:00:00:97", 0},
	{"a pod's link has another MAC", "ip link set VETH address 02:00:00:00:00:96", 0},
	{"a pod's link has lost its addresses", "ip addr flush dev VETH", 2},
	{"a pod's link has another MTU", "ip link set VETH mtu 1280", 2},
	{"a pod's link answers ARP", "ip link set VETH arp on", 2},
	{"forwarding is off",
		"echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > " +
			"/proc/sys/net/ipv6/conf/all/forwarding", 0},
	{"all at once", "ip link del TUNNEL; ip link set VETH down; ip route flush proto 83; ip -6 " +
		"route flush proto 84; echo 0 > /proc/sys/net/ipv4/ip_forward", 0},
}

// plainFaults are for nodes without a tunnel. The uplink's IPv6 address, which the kernel forgets,
// is the administrator's to add again.
var plainFaults = []fault{
	{"routes between nodes are flushed", "ip route flush proto 84; ip -6 route flush proto 84", 0},
	{"a route leads elsewhere", "ip route replace 10.244.2.0/24 via 192.168.0.250 proto 84; ip " +
		"-6 route replace fd00:10:244:2::/64 via fd00:192:168::250 proto 84", 0},
	{"a route leads nowhere", "ip route replace unreachable 10.244.2.0/24 proto 84", 1},
	{"the uplink is set down and up",
		"ip link set eth0 down; ip link set eth0 up; ip addr add fd00:192:168::1/64 dev eth0 " +
			"nodad", 0},
	{"a tunnel device appears", "ip link add TUNNEL type vxlan id 1 dev eth0 dstport 8472", 2},
}

// What is deleted or altered by hand on a node is as it was within two seconds, in every detail,
// and traffic flows again. The agent is halted while the fault is made, so that there is one; time
// counts from when it goes on. Not parallel: load would be in the times.
func TestHeals(t *testing.T) {
	for _, n := range []struct {
		backend lab.Backend
		faults  []fault
	}{{lab.VXLAN, faults}, {lab.HostGW, plainFaults}} {
		t.Run(string(n.backend), func(t *testing.T) {
			w := newWorld(t, "heals", lab.Options{Backend: n.backend})
			w.run("node1", clientPod)
			w.run("node2", serverPod)
			w.talk(clientPod, serverPod)
			names := w.names()
			w.eventually(settleTime, "the node to come to rest", func() bool {
				return w.atRest("node1")
			})
			healthy := w.state("node1")
			t.Logf("node1 as it should be:\n%s", healthy)
			for _, f := range n.faults {
				w.part(f.name, func(w *world) { w.heals(f, names.Replace(f.command), healthy) })
			}
		})
	}
}

// The pods of TestHeals, on node1 and node2.
const clientPod, serverPod = "default/client", "default/server"

// names fills in what faults are about.
func (w *world) names() *strings.Replacer {
	w.t.Helper()
	return strings.NewReplacer(
		"TUNNEL", tunnel,
		"VETH", strings.TrimSpace(w.sh("node1", "cd /proc/sys/net/ipv4/conf && echo slup*")),
		"PEER",
		strings.TrimSpace(w.sh("node1",
			"{ bridge fdb show dev "+tunnel+" || true; } | sed -n 's/ dst 192.168.0.2 .*//p'")),
		"ADDR4", w.pod(clientPod).Addr4().String(),
		"ADDR6", w.pod(clientPod).Addr6().String(),
	)
}

// atRest says whether a node's state is complete, and stays as it is for a while.
func (w *world) atRest(node string) bool {
	w.t.Helper()
	state := w.state(node)
	for range 5 {
		if w.state(node) != state {
			return false
		}
	}
	return strings.Contains(state, w.pod(clientPod).Addr4().String()+" lladdr")
}

// heals demands that a fault is one, and heals.
func (w *world) heals(f fault, command, healthy string) {
	w.t.Helper()
	resume := w.haltAgent("node1")
	defer resume()
	w.sh("node1", command)
	if w.state("node1") == healthy {
		w.t.Errorf("%s changed nothing", command)
	}
	if n := w.working(clientPod, serverPod); n != f.works {
		w.t.Errorf("%s: pods connect over %d families, want %d", command, n, f.works)
	}
	start := time.Now()
	resume()
	w.awaitState(healthy, start)
	w.eventually(healTime-time.Since(start), "pods to connect again", func() bool {
		return w.working(clientPod, serverPod) == 2
	})
	w.talk(clientPod, serverPod)
}

// awaitState waits until node1 is as it was.
func (w *world) awaitState(healthy string, start time.Time) {
	w.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	state := w.state("node1")
	for ; state != healthy && time.Since(start) < settleTime; state = w.state("node1") {
		<-tick.C
	}
	took := time.Since(start)
	if state != healthy {
		w.t.Fatalf("after %s, the node isn't as it was:\n%s", took, cmp.Diff(healthy, state))
	}
	if took > healTime {
		w.t.Errorf("healed after %s, want %s", took.Round(time.Millisecond), healTime)
		return
	}
	w.t.Logf("healed after %s", took.Round(time.Millisecond))
}

// haltAgent halts a node's agent, until resume is called, or the test ends.
func (w *world) haltAgent(node string) (resume func()) {
	w.t.Helper()
	agent, err := os.FindProcess(w.Node(node).AgentPID())
	must(w.t, err)
	must(w.t, agent.Signal(syscall.SIGSTOP))
	w.eventually(healTime, "the agent to be halted", func() bool {
		return isHalted(w.t, agent.Pid)
	})
	return func() { must(w.t, agent.Signal(syscall.SIGCONT)) }
}

// isHalted says whether every thread of a process is stopped: one that was in a system call goes on
// until that returns.
func isHalted(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it ended
		}
		must(t, err)
		if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return len(threads) > 0
}

// working counts the families over which a pod can connect to another.
func (w *world) working(from, to string) (n int) {
	w.t.Helper()
	var works atomic.Int64
	var trying sync.WaitGroup
	for _, dst := range w.addrs(to) {
		trying.Go(func() {
			if w.connects(from, at(dst, tcpPort)) {
				works.Add(1)
			}
		})
	}
	trying.Wait()
	return int(works.Load())
}

// state is all that a node has of the pod network, as a person would look at it.
func (w *world) state(node string) string {
	w.t.Helper()
	const look = `
for device in $(cd /proc/sys/net/ipv4/conf; echo sluice.* slup*); do
  [ -d /proc/sys/net/ipv4/conf/$device ] || continue
  { ip -o -d link show dev $device; ip -o addr show dev $device
    ip neigh show dev $device | sort; ip -6 neigh show dev $device | sort
    bridge fdb show dev $device | sort; } || true # it may come or go meanwhile
done
ip route show proto 83; ip -6 route show proto 83; ip route show proto 84; ip -6 route show proto 84
cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding`
	// indexes, and the name of the pod's namespace if it can be found
	volatile := regexp.MustCompile(`^[0-9]+: |link-netns\S* \S+`)
	var lines []string
	for line := range strings.Lines(w.sh(node, look)) {
		lines = append(lines,
			strings.Join(strings.Fields(volatile.ReplaceAllString(line, "")), " "))
	}
	return strings.Join(lines, "\n")
}
