package table

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/testnet"
)

// TestFloodWhileBlocksAreReplaced: blocks around an address change again and again, as those of an
// ipBlock do while Nodes come and go: a new set and new rules replace the old. One set has the
// client in each of its states, another the second client in none: of the first one's packets none
// is lost, of the second one's none passes.
//
// Were the sets changed in place, kernels with the bug interval-sets of docs/kernels.md would fail,
// such as Linux 6.1 and 6.12.
// SLUICE_REPLACEMENTS is how often blocks are replaced without a wait between.
func TestFloodWhileBlocksAreReplaced(t *testing.T) {
	each(t, noLimit, func(f *floodNet, n int) {
		if f.hasty {
			n = replacements(t)
		}
		if lost, passed := floodBlocks(f, n, false); lost > 0 || passed > 0 {
			t.Errorf("%d allowed packets were lost, %d denied ones passed", lost, passed)
		}
	})
}

// TestFloodWhileBlocksAreEdited is the control: the sets change in place. Kernels with the bug
// answer wrongly then, as the figures show; those that are known to be mended don't.
func TestFloodWhileBlocksAreEdited(t *testing.T) {
	lost, passed := floodBlocks(newFloodNet(t, true), replacements(t), true)
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	kernel := kernels.Identify(unix.ByteSliceToString(name.Release[:]),
		unix.ByteSliceToString(name.Version[:]))
	bugs := kernels.Bugs()
	i := slices.IndexFunc(bugs, func(b kernels.Bug) bool { return b.Name == "interval-sets" })
	if kernel.Of(bugs[i], runtime.GOARCH) == kernels.Mended && (lost > 0 || passed > 0) {
		t.Errorf("%s: %d allowed packets were lost, %d denied ones passed", kernel, lost, passed)
	}
}

// replacements is how often blocks change without a wait between.
func replacements(t *testing.T) int {
	t.Helper()
	text := os.Getenv("SLUICE_REPLACEMENTS")
	switch {
	case text != "":
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 {
			t.Fatalf("SLUICE_REPLACEMENTS=%q: expected a number from 1 on", text)
		}
		return number
	case os.Getenv("SLUICE_LONG") != "":
		return paces[1].long
	}
	return 1000 // it is slower than the others
}

// blockStates are the states of the set that has the client, 10.244.1.2, and of the one that
// doesn't have the other one, 10.244.1.3: the range around it grows and shrinks at either end, is
// split beside it, and ranges come and go next to it.
var blockStates = [][2]string{
	{"10.244.1.0-10.244.1.3", "10.244.1.0-10.244.1.2 10.244.1.4-10.244.1.9"},
	{"10.244.1.2-10.244.1.9", "10.244.1.1-10.244.1.2 10.244.1.4-10.244.1.5"},
	{"0.0.0.0-10.244.1.3 10.244.1.5-255.255.255.255",
		"0.0.0.0-10.244.1.2 10.244.1.4-255.255.255.255"},
	{"0.0.0.0-10.244.1.0 10.244.1.2-255.255.255.255",
		"0.0.0.0-10.244.1.0 10.244.1.5-255.255.255.255"},
	{"10.244.1.2-10.244.1.2", "10.244.1.2-10.244.1.2"},
	{"10.244.1.1-10.244.1.1 10.244.1.2-10.244.1.2 10.244.1.3-10.244.1.3",
		"10.244.1.2-10.244.1.2 10.244.1.4-10.244.1.4"},
}

// blocks is a set of ranges, some of which are elsewhere and stay.
func blocks(name, ranges string) *nft.Set {
	s := &nft.Set{Name: name, Key: []nft.Field{nft.SrcAddr4}, Interval: true,
		Elements: map[nft.Element]nft.Verdict{}}
	for r := range strings.FieldsSeq(ranges) {
		first, last, _ := strings.Cut(r, "-")
		s.Elements[nft.RangeElement(netip.MustParseAddr(first), netip.MustParseAddr(last))] =
			nft.Verdict{}
	}
	return s
}

// floodBlocks has the blocks change n times, by other sets or in place, and returns how many
// packets had the wrong fate.
func floodBlocks(f *floodNet, n int, inPlace bool) (lost, passedDenied uint64) {
	f.t.Helper()
	state := func(i int) *nft.Ruleset {
		i %= len(blockStates)
		withClient, withoutOther := fmt.Sprintf("blocks/client/%d", i),
			fmt.Sprintf("blocks/other/%d", i)
		if inPlace {
			withClient, withoutOther = "blocks/client", "blocks/other"
		}
		only := func(chain, set string) *nft.Chain {
			return &nft.Chain{Name: chain, Rules: []nft.Rule{
				rule(nft.InSet{Fields: []nft.Field{nft.SrcAddr4}, Set: set}, do(nft.Accept)),
				rule(do(nft.Drop)),
			}}
		}
		rs := f.ruleset(1, only("pod/server", withoutOther))
		rs.AddChain(only("pod/victim", withClient))
		now := blockStates[i]
		rs.AddSet(blocks(withClient, now[0]))
		rs.AddSet(blocks(withoutOther, now[1]))
		return rs
	}
	patches := make([]func() nft.Patch, len(blockStates))
	for i := range blockStates { // a Table takes ownership of what it is given
		patches[i] = func() nft.Patch {
			return nft.Diff(state(i+len(blockStates)-1), state(i))
		}
	}
	f.must(f.table.Sync(context.Background(), state(0)))
	match := func(to netip.Addr) string {
		return fmt.Sprintf("ip daddr %s udp dport %d", to, floodPort)
	}
	read := f.node.Watch(match(victimAddr), match(serverAddr))
	f.hosts[victimAddr].Sink(testnet.UDP, floodPort)
	f.hosts[serverAddr].Sink(testnet.UDP, floodPort)
	to := func(from, to netip.Addr) *testnet.Flood {
		return f.hosts[from].Flood(netip.AddrPortFrom(to, floodPort), testnet.OnCPU(clientCPU))
	}
	allowed, denied := to(clientAddr, victimAddr), to(otherAddr, serverAddr)
	for i := range n {
		f.must(f.apply(patches[(i+1)%len(blockStates)]()))
	}
	allowed.Stop()
	denied.Stop()
	came, passed := read()
	how := "replacements"
	if inPlace {
		how = "edits (the control)"
	}
	f.t.Logf("proof: %d %s of blocks, %d packets allowed, %d passed; %d denied, %d passed", n, how,
		came[0], passed[0], came[1], passed[1])
	if came[0] < uint64(n) || came[1] < uint64(n) || passed[0] == 0 {
		f.t.Errorf("only %d and %d packets came over %d changes", came[0], came[1], n)
	}
	if came[0] > passed[0]+1 { // one may be under way
		lost = came[0] - passed[0]
	}
	return lost, passed[1]
}
