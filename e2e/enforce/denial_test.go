package enforce

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-net/sluice/test/probe"
)

// denialsAreReported: denied packets are counted to the last one, through changes of policies, and
// the node's log says who was denied what, and by which policies.
func denialsAreReported(w *world) {
	const port = 4747 // no other pod's
	node := w.Node(w.node["dev/db"])
	counted := func() float64 {
		return max(0, metric(w.ask(node, "/metrics"),
			`sluice_denied_packets_total{direction="ingress",namespace="dev",pod="db"}`))
	}
	send := func(n int) {
		for i := range n {
			for _, family := range []int{4, 6} {
				src := netip.AddrPortFrom(w.addr("dev/web", "dev/db", family), uint16(20000+i))
				dst := netip.AddrPortFrom(w.addr("dev/db", "dev/web", family), port)
				w.must(w.Do("dev/web", func() error { return probe.SendUDP(src, dst) }))
			}
		}
	}
	w.setPolicies(map[string]string{"dev/p": fromProdClients})
	w.denied("dev/web > dev/db tcp/80")
	was, packets := counted(), 0
	for round, change := range []func(){
		func() {},
		func() { w.setPolicies(map[string]string{"dev/q": fromProdClients}) },
		func() { w.deletePolicies("dev/p") },
	} {
		change()
		// connections of before go on trying
		w.eventually("the counter being at rest", func() bool {
			last := was
			was = counted() - float64(packets)
			return was == last
		})
		const n = 20
		send(n)
		packets += 2 * n
		w.eventually(fmt.Sprintf("round %d: every packet being counted", round), func() bool {
			return counted() == was+float64(packets)
		})
	}
	w.eventually("a line about it", func() bool {
		for line := range strings.Lines(node.AgentLog()) {
			if contains(line, `"msg":"Denied"`, `"direction":"ingress"`, `"sourcePod":"dev/web"`,
				`"destinationPod":"dev/db"`,
				fmt.Sprintf(`"protocol":"UDP","port":%d`, port), `"policies":"dev/p"`,
				`"nearest":"dev/p ingress rule 0`) {
				return true
			}
		}
		return false
	})
	w.deletePolicies("dev/q")
	w.allowed("dev/web > dev/db tcp/80")
}
