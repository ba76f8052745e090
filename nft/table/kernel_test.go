package table

import (
	"context"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/nfttest"
)

// A namespace is a fresh network namespace, in which tables are opened.
type namespace struct{ *nfttest.Namespace }

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	return &namespace{nfttest.NewNamespace(t)}
}

var (
	addr       = nfttest.Addr
	rule       = nfttest.Rule
	jump       = nfttest.Jump
	accept     = nfttest.Accept
	drop       = nfttest.Drop
	ret        = nfttest.Return
	everything = nfttest.Everything
	eventually = nfttest.Eventually

	hostPortKey = []nft.Field{nft.DstAddr4, nft.L4Proto, nft.DstPort}
)

func (n *namespace) open(opts Options) *Table {
	n.Helper()
	return n.openOver(nftsocket.Dial, opts)
}

func (n *namespace) openOver(dial nftsocket.Dialer, opts Options) *Table {
	n.Helper()
	opts.NetNS = int(n.NS.Fd())
	table, err := OpenOver(dial, opts)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if err := table.Close(); err != nil {
			n.Error(err)
		}
	})
	return table
}

func mustSync(t testing.TB, table *Table, want *nft.Ruleset) {
	t.Helper()
	if err := table.Sync(context.Background(), want); err != nil {
		t.Fatalf("Sync: %v", err)
	}
}

func mustApply(t testing.TB, table *Table, p nft.Patch) {
	t.Helper()
	if err := table.Apply(context.Background(), p); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func mustMatch(t testing.TB, table *Table) {
	t.Helper()
	list, err := table.Check(context.Background())
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	if len(list) > 0 {
		t.Fatalf("the kernel's table differs:\n%s", strings.Join(list, "\n"))
	}
}
