package foreign

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

const noEntrance = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: no-entrance}
spec: {podSelector: {matchLabels: {app: heir}}}
`

// testReuse: clients go on sending to a pod's addresses, from the same ports, while it is replaced
// by one with the same addresses that nothing may talk to. Nothing of what they send arrives there.
func (w *world) testReuse() {
	t := w.t
	w.apply(noEntrance)
	var senders []*sender
	for _, node := range w.Nodes() {
		w.fixAddresses(node)
		old := on(node, "shop/old")
		w.create(pod(old, node.Name(), map[string]string{"app": "old"}, nil))
		for _, from := range []string{on(node, "shop/client"), lab.Outside} {
			for _, addr := range w.addrs(old) {
				senders = append(senders, w.keepSending(from, netip.AddrPortFrom(addr, 53)))
			}
		}
	}
	for _, s := range senders {
		w.eventually("answers from "+s.dst.String(), func() bool { return s.answered() > 0 })
	}
	var heirs []string
	var flows []flow
	for i, node := range w.Nodes() {
		old, heir := on(node, "shop/old"), on(node, "shop/heir")
		addrs := w.addrs(old)
		w.deletePods(old)
		if !allWirings[i].chained { // nothing but the pod's end tells the agent, and nothing waits
			w.awaitForgotten(node, addrs)
		}
		w.create(pod(heir, node.Name(), map[string]string{"app": "heir"}, nil))
		if !slices.Equal(w.addrs(heir), addrs) {
			t.Fatalf("%s has %v, not %v", heir, w.addrs(heir), addrs)
		}
		heirs = append(heirs, heir)
		flows = append(flows, flow{on(node, "shop/client"), heir, probe.UDP, 53},
			flow{lab.Outside, heir, probe.UDP, 53})
	}
	w.denied(flows...)
	for _, heir := range heirs {
		if n := w.datagrams(heir); n != 0 {
			t.Errorf("%d datagrams for the last owner of its addresses arrived at %s", n, heir)
		}
	}
	must(t, w.Delete(t.Context(), noEntrance))
	w.allowed(flows...)
	for _, heir := range heirs { // the counter counts
		if w.datagrams(heir) == 0 {
			t.Errorf("no datagram arrived at %s", heir)
		}
	}
	w.deletePods(heirs...)
}

// awaitForgotten waits until the node has no connections to the addresses any more. What clients go
// on sending makes none, as nobody is known to have them.
func (w *world) awaitForgotten(node *lab.Node, addrs []netip.Addr) {
	w.t.Helper()
	w.eventually("forgotten connections on "+node.Name(), func() bool {
		var found []conntrack.Entry
		must(w.t, node.Do(func() error {
			table, err := conntrack.Open()
			if err != nil {
				return err
			}
			defer table.Close()
			var queries []conntrack.Query
			for _, a := range addrs {
				queries = append(queries, conntrack.AnsweredBy(a))
			}
			found, err = table.Find(queries, func(e *conntrack.Entry) bool {
				return slices.Contains(addrs, e.Reply.Src)
			})
			return err
		}))
		return len(found) == 0
	})
}

// fixAddresses has the node's pods get the same addresses, one after the other, until the test
// ends; on a bridge with the same MAC, so that no stale neighbour keeps packets away.
func (w *world) fixAddresses(node *lab.Node) {
	w.t.Helper()
	saved, err := os.ReadFile(configuration(node))
	must(w.t, err)
	w.t.Cleanup(func() {
		if err := os.WriteFile(configuration(node), saved, 0o600); err != nil {
			w.t.Error(err)
		}
	})
	var conflist struct {
		CNIVersion string   `json:"cniVersion"`
		Name       string   `json:"name"`
		Plugins    []object `json:"plugins"`
	}
	must(w.t, json.Unmarshal(saved, &conflist))
	ipam := hostLocal(node)
	var ranges []any
	for _, cidr := range node.PodCIDRs() {
		addr := cidr.Masked().Addr()
		for range 200 {
			addr = addr.Next()
		}
		ranges = append(ranges,
			[]any{object{"subnet": cidr.String(), "rangeStart": addr.String(),
				"rangeEnd": addr.String()}})
	}
	ipam["ranges"] = ranges
	conflist.Plugins[0]["ipam"] = ipam
	conflist.Plugins[0]["args"] = object{"cni": object{"mac": "02:00:00:00:00:c8"}}
	text, err := json.Marshal(conflist)
	must(w.t, err)
	must(w.t, os.WriteFile(configuration(node), text, 0o600))
}

// datagrams returns how many UDP datagrams of both families a pod has got, to any port.
func (w *world) datagrams(name string) int {
	w.t.Helper()
	total := 0
	must(w.t, w.Do(name, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			fields := strings.Fields(line)
			if len(fields) == 2 && (fields[0] == "Udp6InDatagrams" || fields[0] == "Udp6NoPorts") {
				n, err := strconv.Atoi(fields[1])
				if err != nil {
					return err
				}
				total += n
			}
		}
		n, err := datagrams4()
		total += n
		return err
	}))
	return total
}

// datagrams4 reads the same of IPv4, in whose file the names stand above the numbers.
func datagrams4() (int, error) {
	text, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.SplitSeq(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		total := 0
		for i, name := range names {
			if name == "InDatagrams" || name == "NoPorts" {
				n, err := strconv.Atoi(fields[i])
				if err != nil {
					return 0, err
				}
				total += n
			}
		}
		return total, nil
	}
	return 0, fmt.Errorf("no line about UDP in\n%s", text)
}

// sender sends datagrams from one port to one address, again and again.
type sender struct {
	dst  netip.AddrPort
	conn *net.UDPConn

	mu      sync.Mutex
	answers int
}

// keepSending sends from a place until the test ends.
func (w *world) keepSending(from string, dst netip.AddrPort) *sender {
	w.t.Helper()
	s := &sender{dst: dst}
	must(w.t, w.Do(from, func() (err error) {
		s.conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
		return err
	}))
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				// an ICMP error of an earlier one is reported here, too
				_, _ = s.conn.Write([]byte("hello\n"))
			}
		}
	})
	running.Go(func() {
		for in, buffer := bufio.NewReader(s.conn), make([]byte, 1500); ; {
			_, err := in.Read(buffer)
			select {
			case <-done:
				return
			default:
			}
			if err == nil {
				s.mu.Lock()
				s.answers++
				s.mu.Unlock()
			}
		}
	})
	w.t.Cleanup(func() {
		close(done)
		_ = s.conn.Close()
		running.Wait()
	})
	return s
}

func (s *sender) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}
