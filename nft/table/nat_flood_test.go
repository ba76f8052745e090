package table

import (
	"context"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/testnet"
)

// handOvers limits how often the port changes hands: each change is dear.
const handOvers = 1000

// TestFloodWhileAHostPortChangesHands: a port of the node leads to one of two pods in turn, whose
// dispatch changes in the same patch. Both deny the client at all times.
func TestFloodWhileAHostPortChangesHands(t *testing.T) {
	each(t, handOvers, func(f *floodNet, n int) {
		f.node.AddAddr(natNode[0])
		key := nft.AddrProtoPortElement(natNode[0], 17, floodPort)
		pods := []netip.Addr{serverAddr, otherAddr}
		old := f.podChain(victimAddr)
		rs := f.ruleset(1, old)
		rs.Sets["dispatch/1"].Elements[f.key(otherAddr)] = nft.JumpTo(old.Name)
		rs.AddSet(&nft.Set{Name: "ports", Key: hostPortKey, Targets: nft.DstAddr4,
			Elements: map[nft.Element]nft.Verdict{
				key: nft.NATTarget(netip.AddrPortFrom(victimAddr, floodPort)),
			}})
		rs.AddChain(natChain(nft.HookPrerouting,
			rule(nft.MatchLocalDst{}, nft.DNAT{Fields: hostPortKey, Map: "ports"})))
		f.must(f.table.Sync(context.Background(), rs))

		// The control: the third pod may be reached through the port.
		f.hosts[victimAddr].ServeUDP(floodPort + 1)
		toControl := nft.Patch{
			Sets: map[string]*nft.SetPatch{"ports": {Put: map[nft.Element]nft.Verdict{
				nft.AddrProtoPortElement(natNode[0], 17,
					floodPort+1): nft.NATTarget(netip.AddrPortFrom(victimAddr, floodPort+1)),
			}}}}
		f.must(f.table.Apply(context.Background(), toControl))
		f.client.MustReach(f.t, testnet.UDP, netip.AddrPortFrom(natNode[0], floodPort+1))

		flip := func(i int) error {
			now, to := f.podChain(victimAddr), pods[i%2]
			p := f.repoint(old, now)
			p.Sets["dispatch/1"].Put[f.key(otherAddr)] = nft.JumpTo(now.Name)
			p.Sets["ports"] = &nft.SetPatch{
				Put: map[nft.Element]nft.Verdict{
					key: nft.NATTarget(netip.AddrPortFrom(to, floodPort))}}
			old = now
			return f.table.Apply(context.Background(), p)
		}
		f.must(flip(0))
		sinks := []*testnet.Sink{f.hosts[pods[0]].Sink(testnet.UDP, floodPort),
			f.hosts[pods[1]].Sink(testnet.UDP, floodPort)}
		flood := f.client.Flood(netip.AddrPortFrom(natNode[0], floodPort), testnet.OnCPU(clientCPU))
		for i := range n {
			f.must(flip(i + 1))
		}
		sent := flood.Stop()
		received := sinks[0].Received() + sinks[1].Received()
		f.t.Logf("%d changes, %d packets sent, %d received", n, sent, received)
		if received > 0 || sent < uint64(n) {
			f.t.Errorf("%d of %d packets were received over %d changes", received, sent, n)
		}
	})
}
