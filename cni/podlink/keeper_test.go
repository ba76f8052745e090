package podlink

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/stretch"
)

// What Wire makes is what Differences wants and what a Keeper would have: it changes nothing but
// what Wire leaves to it. One description says all three, for whatever addresses and host ports a
// pod has.
func TestHostEndsAgreeWithThePlugin(t *testing.T) {
	t.Parallel()
	const four, six = "10.1.0.%d", "fd00:1::%x"
	port := func(hostIP string) []cni.HostPort {
		p := cni.HostPort{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}
		if hostIP != "" {
			p.HostIP = netip.MustParseAddr(hostIP)
		}
		return []cni.HostPort{p}
	}
	for name, c := range map[string]struct {
		addresses []string
		ports     []cni.HostPort
		localnet  string // of route_localnet
	}{
		"both families":        {[]string{four, six}, nil, "0"},
		"IPv4 alone":           {[]string{four}, nil, "0"},
		"IPv6 alone":           {[]string{six}, nil, "0"},
		"a host port":          {[]string{four, six}, port(""), "1"},
		"one of IPv4":          {[]string{four, six}, port("0.0.0.0"), "1"},
		"one of an IPv4":       {[]string{four}, port("192.0.2.1"), "1"},
		"one of IPv6":          {[]string{four, six}, port("::"), "0"},
		"one of IPv6, no IPv4": {[]string{six}, port("2001:db8::1"), "0"},
		"a host port, no IPv4": {[]string{six}, port(""), "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newBareWorld(t)
			w.addresses, w.hostPorts = c.addresses, c.ports
			w.addPods(2)
			w.expectAgreement(c.localnet)
		})
	}
}

func (w *hostWorld) expectAgreement(localnet string) {
	w.T.Helper()
	before := w.dump()
	for i, a := range w.Attachments() {
		w.InNode(func() error {
			wiring := WiringOf(a, cnitest.Addrs(cnitest.Node4.String(), cnitest.Node6.String()))
			lines, err := Differences(wiring, Chained{}, w.pods[i].NetNS)
			if err != nil || len(lines) > 0 {
				w.T.Errorf("Differences: %q, %v", lines, err)
			}
			return nil
		})
		got := cnitest.Lines(w.T, w.NetNS,
			"cat /proc/sys/net/ipv4/conf/"+a.Interface+"/route_localnet")
		if got[0] != localnet {
			w.T.Errorf("route_localnet is %s, want %s", got[0], localnet)
		}
	}
	w.start()
	var after []string
	for line := range strings.SplitSeq(w.dump(), "\n") {
		if !strings.HasPrefix(line, "7 ") { // of type unreachable
			after = append(after, line)
		}
	}
	if got := strings.Join(after, "\n"); got != before {
		w.T.Errorf("got\n%s\nwant\n%s", got, before)
	}
	if n := w.ends.Healed(); n != 0 {
		w.T.Errorf("%d host ends count as healed", n)
	}
	if p := w.ends.Problems(); len(p) > 0 {
		w.T.Errorf("problems: %v", p)
	}
}

// meddling is what somebody may do to pods' links, each undone by itself.
var meddling = []string{
	"ip link set POD0 down",
	"ip link set POD0 down; ip link set POD0 up",
	"ip link set POD1 down; ip link set POD1 up",
	"ip link set POD0 arp on",
	"ip link set POD0 address 02:00:00:00:00:01",
	"ip link set POD1 address 02:00:00:00:00:02",
	"ip link set POD0 mtu 1300",
	"ip link set POD1 alias nobody",
	"ip addr flush dev POD0",
	"ip addr add 10.1.0.99/32 dev POD0",
	"ip addr add fd00:9::1/64 dev POD1 nodad",
	"ip addr change fe80::1/64 dev POD0 valid_lft 100 preferred_lft 50",
	"ip neigh flush dev POD0 nud permanent",
	"ip neigh replace FOUR0 lladdr 02:00:00:00:00:03 dev POD0 nud permanent",
	"ip neigh del SIX1 dev POD1",
	"ip neigh add 10.1.0.77 lladdr 02:00:00:00:00:03 dev POD0 nud permanent",
	"ip route flush proto 83; ip -6 route flush proto 83",
	"ip route del FOUR0",
	"ip -6 route del SIX0",
	"ip route replace FOUR0 dev POD1 proto 83",
	"ip route replace FOUR0 dev lo",
	"ip route replace FOUR1 dev POD1 proto 83 scope link mtu 1200",
	"ip -6 route replace SIX1 dev POD0 proto 83",
	"ip -6 route append SIX0 via fe80::5 dev POD1 proto 83",
	"ip route add blackhole FOUR0 proto 83 metric 9",
	"ip route add 10.1.0.200 dev POD0 proto 83",
	"ip -6 route add fd00:7::/64 dev POD1 proto 83",
	"ip route del unreachable 10.1.0.0/24",
	"ip route add unreachable 10.99.0.0/24 proto 83 metric 1073741824",
	"echo 1 > /proc/sys/net/ipv6/conf/POD0/accept_ra",
	"echo 1 > /proc/sys/net/ipv6/conf/POD1/accept_dad",
	"echo 0 > /proc/sys/net/ipv6/conf/POD1/addr_gen_mode",
	"echo 1 > /proc/sys/net/ipv6/conf/POD0/disable_ipv6",
	"echo 0 > /proc/sys/net/ipv4/conf/POD0/route_localnet",
	"echo 0 > /proc/sys/net/ipv4/conf/POD1/forwarding",
	"ip addr del 192.0.2.1/32 dev lo; ip addr add 192.0.2.1/32 dev lo",
	"tc qdisc del dev POD0 root",
	"tc qdisc replace dev POD0 root tbf rate 1gbit burst 1mb limit 1mb",
	"tc qdisc replace dev POD0 root tbf rate 1gbit burst 125001b limit 6250000b",
	"tc qdisc del dev POD0 ingress",
	"tc filter del dev POD0 ingress",
	"tc filter add dev POD0 ingress protocol ip pref 9 u32 match ip dst 10.0.0.1 action mirred " +
		"egress redirect dev lo",
	"ip link set IFB0 down",
	"ip link del IFB0",
	"ip link add slub0123456789a type ifb",
}

// Whatever somebody does, in whatever order, it heals, and the result is what it was.
func TestHostEndsHeal(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 2)
	w.start(shaped)
	want := w.dump()
	seed := rand.Uint64() //nolint:gosec // a test's choice
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's choice
	var times []time.Duration
	heal := func(commands ...string) {
		start := time.Now()
		w.awaitDump(strings.Join(commands, "; "), want)
		times = append(times, time.Since(start))
	}
	several := func(which []int) {
		var commands []string
		for _, i := range which {
			w.do(meddling[i] + " || true") // an earlier one may be in its way
			commands = append(commands, meddling[i])
		}
		heal(commands...)
	}
	if stretch.Factor() == 1 {
		for _, i := range random.Perm(len(meddling)) {
			w.do(meddling[i])
			heal(meddling[i])
		}
		for range 15 {
			which := make([]int, 2+random.IntN(4))
			for i := range which {
				which[i] = random.IntN(len(meddling))
			}
			several(which)
		}
	} else { // each look takes seconds: all of it, but in few steps
		for which := range slices.Chunk(random.Perm(len(meddling)), 6) {
			several(which)
		}
	}
	slices.Sort(times)
	usual, worst := times[len(times)*9/10], times[len(times)-1]
	t.Logf("healed within %s, 9 of 10 times within %s", worst.Round(time.Millisecond),
		usual.Round(time.Millisecond))
	promised := 2 * time.Second
	// The worst is the machine's, when other tests keep it busy. An emulated one shows nothing.
	if usual > promised && stretch.Factor() == 1 {
		t.Errorf("that isn't %s", promised)
	}
	if w.ends.Healed() == 0 {
		t.Error("nothing counts as healed")
	}
}

// Pods are reached again after their link went down and up, which takes the routes away: the
// control shows that it does.
func TestHealedHostEndCarriesPackets(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 1)
	cnitest.Serve(t, w.pods[0].NetNS)
	reach := func() error {
		for _, addr := range w.pods[0].Addrs {
			if err := cnitest.Connect(w.NetNS, netip.AddrPortFrom(addr, cnitest.Port)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := reach(); err != nil {
		t.Fatalf("before: %v", err)
	}
	w.do("ip link set POD0 down; ip link set POD0 up")
	if reach() == nil {
		t.Fatal("the pod is reached without its routes, so this test shows nothing")
	}
	w.start()
	if err := reach(); err != nil {
		t.Errorf("after: %v", err)
	}
}

// The unreachable routes follow the podCIDRs, and a pod's routes go with its attachment.
func TestHostRoutesFollow(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 1)
	w.start()
	routes := func() string {
		return strings.Join(cnitest.Lines(t, w.NetNS,
			"ip -N route; ip -N -6 route | grep -v fe80"), "\n")
	}
	attachments := w.Attachments()
	await := func(what string, want ...string) {
		t.Helper()
		cnitest.Eventually(t, what, func() bool {
			now := routes()
			return strings.Count(now, "proto 83") == len(want) &&
				!slices.ContainsFunc(want, func(r string) bool { return !strings.Contains(now, r) })
		})
	}
	await("start", "10.1.0.1 dev", "7 10.1.0.0/24", "7 fd00:1::/64", "fd00:1::1 dev")
	w.ends.Set(attachments, nil, cnitest.Prefixes("10.7.0.0/24"))
	await("other podCIDR", "10.1.0.1 dev", "7 10.7.0.0/24", "fd00:1::1 dev")
	w.ends.Set(nil, nil, cnitest.Prefixes("10.7.0.0/24"))
	await("no attachment", "7 10.7.0.0/24")
	w.ends.Set(attachments, nil, nil)
	await("podCIDRs that aren't known", "10.1.0.1 dev", "7 10.7.0.0/24", "fd00:1::1 dev")
	if n := w.ends.Healed(); n != 0 {
		t.Errorf("%d host ends count as healed", n)
	}
}

// A link that is another attachment's is left alone, whatever it looks like.
func TestForeignLinkIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 1)
	other := w.Attachments()[0]
	other.ContainerID = "another"
	w.ends.Set([]cni.Attachment{other}, nil, nil)
	w.do("ip link set POD0 down; ip link set POD0 up; ip link set POD0 mtu 1300")
	before := w.dump()
	w.pass(w.openHere())
	if after := w.dump(); after != before {
		t.Errorf("got\n%s\nwant\n%s", after, before)
	}
}

func (w *hostWorld) openHere() *link.Kernel {
	w.T.Helper()
	k, err := w.ends.loop.Open()
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(k.Close)
	return k
}

// pass is one of the keeper's, in the node.
func (w *hostWorld) pass(k *link.Kernel) {
	w.InNode(func() error { w.ends.pass(k); return nil })
}

// Pods come and go, many at once, while their host ends are looked after from before the link is
// there: no ADD fails of it.
func TestHostEndsAreNotInTheWay(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 0)
	set := func() {
		w.ends.Set(w.Attachments(), []netip.Addr{cnitest.Node4, cnitest.Node6}, podCIDRs)
	}
	w.setOnChange(set)
	w.start()
	const pods, rounds = 8, 4
	var wg sync.WaitGroup
	for i := range pods {
		wg.Go(func() {
			for round := range rounds {
				p := w.newPod(fmt.Sprintf("c%d-%d", i, round), fmt.Sprintf("pod-%d", i))
				if _, err := p.Add(); err != nil {
					w.T.Errorf("ADD: %v", err)
					return
				}
				if round < rounds-1 {
					if err := p.Del(); err != nil {
						w.T.Errorf("DEL: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	set()
	cnitest.Eventually(t, "all is settled", w.isClean)
	if got := strings.Count(w.dump(), "alias dev/pod-"); got != pods {
		t.Errorf("%d pods' links are there, want %d", got, pods)
	}
	if n := w.ends.Healed(); n != 0 {
		t.Errorf("%d host ends count as healed", n)
	}
	if p := w.ends.Problems(); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
}

// A DEL leaves the attachment out, then sets its link down: no pass that began before sets it up
// again.
func TestCutLinkStaysDown(t *testing.T) {
	t.Parallel()
	w := newHostWorld(t, 1)
	w.ends.options.FreshFor = time.Nanosecond
	w.start()
	all, name := w.Attachments(), w.linkOf(w.pods[0])
	host := w.openHere()
	isUp := func() bool {
		now, err := host.LookAt(name)
		if err != nil {
			t.Error(err)
		}
		return now.Up
	}
	var healed int
	rounds := stretch.Fewer(60)
	step := stretch.By(70*time.Millisecond) / time.Duration(rounds)
	w.InNode(func() error {
		end, err := host.LinkByName(name)
		if err != nil {
			return err
		}
		for i := range rounds {
			if err := host.LinkSetDown(end); err != nil { // so that there is something to heal
				return err
			}
			w.ends.Set(all, nil, podCIDRs)
			// Passes are 50 ms apart, and no multiple of the step is: the cut meets each moment.
			<-time.After(time.Duration(i) * step)
			if isUp() {
				healed++
			}
			w.ends.Set(nil, nil, podCIDRs)
			if err := host.LinkSetDown(end); err != nil {
				return err
			}
			w.ends.Set(nil, nil, cnitest.Prefixes("10.9.0.0/24")) // another pass
			cnitest.Eventually(t, "a pass after the cut", func() bool {
				return !strings.Contains(w.dump(), "7 10.1.0.0/24")
			})
			if isUp() {
				t.Errorf("round %d: the link is up again", i)
			}
		}
		return nil
	})
	if healed == 0 {
		t.Error("the link was never set up again, so this test shows nothing")
	}
	t.Logf("set up before the cut in %d of %d rounds", healed, rounds)
}

// BenchmarkIdlePass is a look at 100 pods' host ends when all is well.
func BenchmarkIdlePass(b *testing.B) {
	w := newHostWorld(b, 100)
	s := w.openHere()
	w.ends.Set(w.Attachments(), []netip.Addr{cnitest.Node4, cnitest.Node6}, podCIDRs)
	w.pass(s)
	for _, tr := range w.ends.trackers {
		tr.since = time.Now().Add(-time.Minute)
	}
	w.pass(s)
	err := w.NetNS.Do(func(ns.NetNS) error {
		for b.Loop() {
			same, err := w.ends.round(s, w.ends.inputs)
			if err != nil || !same {
				return fmt.Errorf("it isn't idle: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
