package verify_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/controllers/answers"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/randomcluster"
	"github.com/sluice-net/sluice/test/ruleworld"
	"github.com/sluice-net/sluice/test/testnet"
	"github.com/sluice-net/sluice/verify"
	"github.com/sluice-net/sluice/verify/kernel"
)

// verifyState is a random state of a cluster and its ruleset.
type verifyState struct {
	cfg     ruleset.Config
	cluster *cluster.Cluster
	rules   *nft.Ruleset
}

// drawVerifyState draws a state of one of the kinds of nodes that there are.
func drawVerifyState(t *rapid.T) *verifyState {
	s := &verifyState{cfg: ruleset.Config{AllowPodToNode: rapid.Bool().Draw(t, "podToNode")}}
	s.cfg.IPVS = rapid.IntRange(0, 2).Draw(t, "ipvs") == 0
	s.cfg.LogPerSecond = uint64(rapid.IntRange(0, 1).Draw(t, "log"))
	opts := randomcluster.Options(t)
	opts.AllowPodToNode = s.cfg.AllowPodToNode
	w := randomcluster.NewWorld(opts)
	s.cluster = cluster.New(opts)
	for range rapid.IntRange(5, 60).Draw(t, "events") {
		w.Event(t, s.cluster)
	}
	if rapid.Bool().Draw(t, "network") {
		s.cfg.Network = ruleworld.DrawNetwork(t)
	} else if rapid.Bool().Draw(t, "ranges") {
		s.cfg.PodRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/25"),
			netip.MustParsePrefix("fd00::/126")}
	}
	s.cluster.Take()
	r := ruleset.NewRenderer(s.cfg)
	r.SetHostPorts("e1",
		[]ruleset.HostPort{{HostPort: 80, ContainerPort: 8080, Protocol: policy.ProtocolTCP}})
	s.rules = r.Ruleset(s.cluster)
	return s
}

// pass holds a program against the state.
func (s *verifyState) pass(p *kernel.Program) (verify.Result, error) {
	return verify.NewPass(p, s.cluster.Snapshot().Meaning(), answers.VerifiedNode(&s.cfg)).
		Run(context.Background())
}

// kernelTable is a table in a network namespace of its own.
type kernelTable struct {
	*table.Table
	space *testnet.Node
}

func newKernelTable(t *testing.T) *kernelTable {
	t.Helper()
	space := testnet.NewNode(t)
	return &kernelTable{openKernelTable(t, space), space}
}

func openKernelTable(t *testing.T, space *testnet.Node) *table.Table {
	t.Helper()
	table, err := table.Open(table.Options{NetNS: space.NSFd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// install makes a table that says what rs does, and reads it back. It begins with none: the way
// from one state to another is tested elsewhere.
func (k *kernelTable) install(rs *nft.Ruleset) (*kernel.Program, error) {
	k.space.NftInput("add table inet sluice\ndelete table inet sluice\n")
	if err := k.Sync(context.Background(), rs.Clone()); err != nil {
		return nil, err
	}
	return kernel.Read(context.Background(), kernel.Options{NetNS: k.space.NSFd()})
}

// TestKernelDoesWhatPoliciesMean: in each state of the cluster, what is read back from the kernel
// does what the policies mean.
func TestKernelDoesWhatPoliciesMean(t *testing.T) {
	t.Parallel()
	k := newKernelTable(t)
	classes := 0
	rapid.Check(t, func(t *rapid.T) {
		s := drawVerifyState(t)
		p, err := k.install(s.rules)
		if err != nil {
			t.Fatal(err)
		}
		result, err := s.pass(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range result.Differences {
			t.Errorf("%s", d)
		}
		classes += result.Classes
	})
	t.Logf("proof: %d classes of packets", classes)
}

// TestVerifyKnowsTheNodeItself: that the node reaches itself by an address of the guarded ranges is
// compared, also where no rule says so.
func TestVerifyKnowsTheNodeItself(t *testing.T) {
	t.Parallel()
	k := newKernelTable(t)
	s := &verifyState{cfg: ruleset.Config{PodRanges: packetworld.BridgedRanges},
		cluster: cluster.New(cluster.Options{Node: "n1", PolicyOnly: true})}
	s.rules = ruleset.NewRenderer(s.cfg).Ruleset(s.cluster)
	differences := func() int {
		t.Helper()
		p, err := k.install(s.rules)
		if err != nil {
			t.Fatal(err)
		}
		result, err := s.pass(p)
		if err != nil {
			t.Fatal(err)
		}
		return result.Total
	}
	if n := differences(); n != 0 {
		t.Errorf("control: %d differences", n)
	}
	input := s.rules.Chains[packetworld.BaseChain("input")]
	input.Rules = slices.DeleteFunc(input.Rules, func(r nft.Rule) bool {
		return r.Comment == "the node to itself"
	})
	if differences() == 0 {
		t.Error("the rule is gone, and nothing differs")
	}
}
