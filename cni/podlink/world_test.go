package podlink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/stretch"
)

// hostWorld is a node with pods that the plugin wired, and with host ends looked after.
type hostWorld struct {
	*cnitest.Node
	*wirer

	T    testing.TB
	ends *Keeper
	pods []*cnitest.Pod
}

var podCIDRs = cnitest.Prefixes("10.1.0.0/24", "fd00:1::/64")

func newHostWorld(t testing.TB, pods int) *hostWorld {
	t.Helper()
	w := newBareWorld(t)
	w.addPods(pods)
	return w
}

func (w *hostWorld) addPods(pods int) {
	w.T.Helper()
	for i := range pods {
		p := w.newPod(fmt.Sprintf("c%d", i), fmt.Sprintf("pod-%d", i))
		p.MustAdd()
		w.pods = append(w.pods, p)
	}
}

func newBareWorld(t testing.TB) *hostWorld {
	t.Helper()
	w := &hostWorld{Node: cnitest.NewNode(t),
		wirer: &wirer{mtu: 1450, addresses: []string{"10.1.0.%d", "fd00:1::%x"}}, T: t}
	w.ends = NewKeeper(KeeperOptions{NetNS: w.NetNS})
	return w
}

func (w *hostWorld) newPod(container, pod string) *cnitest.Pod {
	w.T.Helper()
	return w.NewPod(w.wirer, container, pod, nil)
}

// start runs them with what the server knows, changed at will, until the test ends.
func (w *hostWorld) start(change ...func(*cni.Attachment)) {
	w.T.Helper()
	attachments := w.Attachments()
	for i := range attachments {
		for _, c := range change {
			c(&attachments[i])
		}
	}
	w.ends.Set(attachments, []netip.Addr{cnitest.Node4, cnitest.Node6}, podCIDRs)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.ends.Run(ctx) }()
	w.T.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.T.Errorf("run: %v", err)
		}
	})
	cnitest.Eventually(w.T, "host ends are settled", func() bool {
		return strings.Contains(w.dump(), "7 10.1.0.0/24") && w.isClean()
	})
}

// isClean tells whether a pass of its own finds every link settled, and nothing to do.
func (w *hostWorld) isClean() bool {
	w.T.Helper()
	var clean bool
	w.InNode(func() error {
		ops, err := w.difference()
		clean = err == nil && len(ops) == 0
		return err
	})
	w.ends.mu.Lock()
	defer w.ends.mu.Unlock()
	return clean && w.ends.settled
}

// difference is what there is to do if all links count as settled.
func (w *hostWorld) difference() ([]link.Op, error) {
	k, err := link.Open(link.ProcSys)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	w.ends.mu.Lock()
	in := *w.ends.inputs
	w.ends.mu.Unlock()
	seen, err := look(k, k.Look)
	if err != nil {
		return nil, err
	}
	byID, byLink := map[string]phase{}, map[string]phase{}
	for _, a := range in.attachments {
		if _, found := k.Links()[a.Interface]; found {
			byID[a.ID()], byLink[a.Interface] = settled, settled
		}
	}
	desired := desiredHost(in, byID, k.Links(), seen.isLocal)
	actual, err := seen.hostEnds(desired, byLink)
	if err != nil {
		return nil, err
	}
	shaping, err := seen.shaping(desired)
	return link.Diff(desired, append(actual, shaping...), nil), err
}

// dump is what is there, by the tools that people use.
func (w *hostWorld) dump() string {
	w.T.Helper()
	all := cnitest.Lines(w.T, w.NetNS, `
		ip -d -o link show | grep -o 'slu[pb].*' | sed 's/@.*: </ </; s/ \(txqueuelen\|qlen\|numtxqueues\|link-netns\).*//'
		ip -o link show | grep -o 'alias .*'
		ip -o addr show | grep -o 'slup.*\|lo .*'
		ip neigh show nud permanent | sort
		ip -N route show table main | sed 's/ linkdown//'
		ip -N -6 route show table main | grep -v slub | sed 's/ linkdown//' | sort
		for i in /proc/sys/net/ipv6/conf/slup*; do cd $i; echo accept_ra accept_dad addr_gen_mode disable_ipv6 $(cat accept_ra accept_dad addr_gen_mode disable_ipv6); done
		cat /proc/sys/net/ipv4/conf/slup*/route_localnet /proc/sys/net/ipv4/conf/slup*/forwarding
		tc qdisc show | grep 'slu[pb]' | sed 's/ refcnt [0-9]*//; s/tbf [0-9a-f]*:/tbf/' | sort
		for i in $(tc qdisc show | grep -o 'ingress.*slup[^ ]*' | grep -o 'slup.*'); do tc filter show dev $i ingress; done`)
	return strings.Join(slices.DeleteFunc(all, func(l string) bool {
		return strings.Contains(l, "index ")
	}), "\n")
}

func (w *hostWorld) awaitDump(what, want string) {
	w.T.Helper()
	deadline := time.Now().Add(cnitest.Patience)
	tick := time.NewTicker(stretch.By(20 * time.Millisecond))
	defer tick.Stop()
	for got := w.dump(); got != want; got = w.dump() {
		if time.Now().After(deadline) {
			w.T.Fatalf("%s: got\n%s\nwant\n%s", what, got, want)
		}
		<-tick.C
	}
}

func (w *hostWorld) do(command string) {
	w.T.Helper()
	for i, p := range w.pods {
		command = strings.ReplaceAll(command, fmt.Sprintf("POD%d", i), w.linkOf(p))
		command = strings.ReplaceAll(command, fmt.Sprintf("FOUR%d", i), p.Addrs[0].String())
		command = strings.ReplaceAll(command, fmt.Sprintf("SIX%d", i), p.Addrs[1].String())
		command = strings.ReplaceAll(command, fmt.Sprintf("IFB%d", i), shapeName(w.linkOf(p)))
	}
	cnitest.Lines(w.T, w.NetNS, command)
}

func (w *hostWorld) linkOf(p *cnitest.Pod) string {
	for _, a := range w.Attachments() {
		if a.ContainerID == p.Args.ContainerID {
			return a.Interface
		}
	}
	w.T.Fatalf("no attachment of %s", p.Args.ContainerID)
	return ""
}

// shaped gives the first pod a bandwidth, and a host port.
func shaped(a *cni.Attachment) {
	if a.ContainerID == "c0" {
		a.Bandwidth = cni.Bandwidth{IngressRate: 1e9, IngressBurst: 1e6, EgressRate: 2e9,
			EgressBurst: 1 << 32}
		a.HostPorts = []cni.HostPort{{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}}
	}
}

// A pod whose link comes while a pass looks keeps its routes.
func TestPassesLeaveNewPodsAlone(t *testing.T) {
	t.Parallel()
	w := newBareWorld(t)
	w.setOnChange(func() {
		w.ends.Set(w.Attachments(), []netip.Addr{cnitest.Node4, cnitest.Node6}, podCIDRs)
	})
	changes, stopWatching := make(chan netlink.RouteUpdate, 10_000), make(chan struct{})
	options := netlink.RouteSubscribeOptions{Namespace: new(netns.NsHandle(w.NetNS.Fd()))}
	if err := netlink.RouteSubscribeWithOptions(changes, stopWatching, options); err != nil {
		t.Fatal(err)
	}
	w.ends.Set(nil, nil, podCIDRs)
	s, done := w.openHere(), make(chan struct{})
	var passing sync.WaitGroup
	passes := 0
	passing.Go(func() {
		for ; ; passes++ {
			select {
			case <-done:
				return
			default:
				w.pass(s)
			}
		}
	})
	const pods = 60
	for i := range pods {
		w.newPod(fmt.Sprintf("c%d", i), fmt.Sprintf("pod-%d", i)).MustAdd()
	}
	close(done)
	passing.Wait()
	deadline := time.After(cnitest.Patience)
	for came := 0; came < 2*pods; { // of both families
		select {
		case update := <-changes:
			switch {
			case update.Protocol != RouteProtocol || update.Route.Type == unix.RTN_UNREACHABLE:
			case update.Type == unix.RTM_DELROUTE:
				t.Errorf("the route to %s was removed", update.Dst)
			default:
				came++
			}
		case <-deadline:
			t.Fatalf("%d routes came, want those of %d pods", came, pods)
		}
	}
	close(stopWatching)
	t.Logf("%d passes while %d pods came", passes, pods)
}
