package table

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/nfttest"
)

// TestMissing: what a kernel refuses is named, and nothing else. Asking leaves nothing behind.
func TestMissing(t *testing.T) {
	t.Parallel()
	ns := nfttest.NewNamespace(t)
	opts := Options{NetNS: int(ns.NS.Fd())}
	if missing, err := Missing(t.Context(), opts, kernels.Features()); err != nil ||
		len(missing) > 0 {
		t.Errorf("this kernel lacks %v, error %v", missing, err)
	}
	for _, f := range kernels.Features() {
		table, err := OpenOver(nfttest.Refusing(func(o nft.Object) bool {
			return o.Chain == sampleChain(f.Name)
		}), opts)
		if err != nil {
			t.Fatal(err)
		}
		missing, err := table.missing(t.Context(), kernels.Features())
		if err != nil || len(missing) != 1 || missing[0] != f {
			t.Errorf("without %s: the kernel lacks %v, error %v", f.Name, missing, err)
		}
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	}
	if out := ns.Nft("list", "ruleset"); out != "" {
		t.Errorf("asking has left %s", out)
	}
}

// TestNothingIsAskedBesideATable: a node that has the table, which may be another agent's, is a
// node whose kernel can carry it.
func TestNothingIsAskedBesideATable(t *testing.T) {
	t.Parallel()
	ns := nfttest.NewNamespace(t)
	ns.Load("table inet sluice {}")
	all := func(nft.Object) bool { return true }
	table, err := OpenOver(nfttest.Refusing(all), Options{NetNS: int(ns.NS.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	missing, err := table.missing(t.Context(), kernels.Features())
	if err != nil || len(missing) > 0 {
		t.Errorf("the kernel lacks %v, error %v", missing, err)
	}
	if err := table.Close(); err != nil {
		t.Error(err)
	}
}

// TestWhatSaysNothingOfTheKernel: an error on the way is no missing feature.
func TestWhatSaysNothingOfTheKernel(t *testing.T) {
	t.Parallel()
	if lacks(os.ErrPermission) || lacks(os.ErrDeadlineExceeded) || lacks(nil) {
		t.Error("an error of another kind counts as a missing feature")
	}
	_, err := OpenOver(func(int) (nftsocket.Socket, error) {
		return nil, fmt.Errorf("connecting: %w", unix.EPROTONOSUPPORT)
	}, Options{})
	if !lacks(err) {
		t.Errorf("a kernel without nftables: %v", err)
	}
}
