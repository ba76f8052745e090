package table

import (
	"errors"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/nft"
)

// TestRehearse: the kernel checks a whole ruleset, says what it refuses, and has nothing of it
// afterwards. Of a table that is there, nothing is asked.
func TestRehearse(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	opts := Options{NetNS: int(n.NS.Fd())}
	nothing := func() {
		t.Helper()
		if got := n.Nft("list", "ruleset"); got != "" {
			t.Errorf("there is\n%s", got)
		}
	}
	if err := Rehearse(opts, everything()); err != nil {
		t.Errorf("a good ruleset: %v", err)
	}
	nothing()
	bad := everything()
	bad.Chains["pod/x"] = &nft.Chain{Name: "pod/x", Rules: []nft.Rule{rule(jump("nowhere"))}}
	if err := Rehearse(opts, bad); !errors.Is(err, nft.ErrRefused) ||
		!strings.Contains(err.Error(), "pod/x") {
		t.Errorf("got %v, want one that names the chain", err)
	}
	nothing()
	mustSync(t, n.open(Options{}), everything())
	before := n.Listing()
	if err := Rehearse(opts, bad); !errors.Is(err, ErrThere) {
		t.Errorf("got %v, want that it is there", err)
	}
	if after := n.Listing(); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}
