package nft_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/test/nfttest"
)

// The way to a state leaves no trace: states visited one after another, by patches or by Sync, in
// transactions of any size, end in the same listing as the last state alone.
func TestPathsDoNotMatter(t *testing.T) {
	t.Parallel()
	walked, direct := nfttest.NewNamespace(t), nfttest.NewNamespace(t)
	rapid.Check(t, func(t *rapid.T) {
		opts := table.Options{MaxMessages: rapid.IntRange(1, 20).Draw(t, "messages")}
		opts.NetNS = int(walked.NS.Fd())
		written, err := table.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer written.Close()
		state := nft.GenRuleset(t, "state 0")
		mustSyncRapid(t, written, state)
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			next := nft.GenRuleset(t, "state")
			if rapid.Bool().Draw(t, "by patch") {
				if err := written.Apply(t.Context(), nft.Diff(state, next.Clone())); err != nil {
					t.Fatalf("Apply: %v\n%s\n%s", err, state, next)
				}
			} else {
				mustSyncRapid(t, written, next)
			}
			state = next
			if list, err := written.Check(t.Context()); err != nil || len(list) > 0 {
				t.Fatalf("Check: %v\n%s", err, strings.Join(list, "\n"))
			}
		}

		if out, err := direct.Try("", "flush", "ruleset"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		opts.NetNS = int(direct.NS.Fd())
		fresh, err := table.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		mustSyncRapid(t, fresh, state)
		if got, want := walked.Listing(), direct.Listing(); got != want {
			t.Fatalf("walked\n%s\ndirect\n%s", got, want)
		}
	})
}

func mustSyncRapid(t *rapid.T, written *table.Table, want *nft.Ruleset) {
	t.Helper()
	if err := written.Sync(t.Context(), want.Clone()); err != nil {
		t.Fatalf("Sync: %v\n%s", err, want)
	}
}

// nft takes every name of nft.Name, in every place of a name, and takes its own listing of it back;
// the same goes for comments.
func TestNFTParsesNamesAndComments(t *testing.T) {
	t.Parallel()
	n := nfttest.NewNamespace(t)
	rapid.Check(t, func(t *rapid.T) {
		written, err := table.Open(table.Options{NetNS: int(n.NS.Fd())})
		if err != nil {
			t.Fatal(err)
		}
		defer written.Close()
		words := rapid.OneOf(
			rapid.SampledFrom([]string{"fwd", "tcp", "ip", "th", "last", "0x1", "1d", "accept",
				"policy", "a:b", "ct", "::1", "10.0.0.1"}),
			rapid.StringMatching(`[a-zA-Z0-9./_=:@{}"*-]{0,12}`),
			rapid.String(),
			rapid.Just(strings.Repeat("p", 253)),
		)
		name := func(what string) string {
			return nft.Name(rapid.SliceOfN(words, 1, 3).Draw(t, what)...)
		}
		comment := rapid.OneOf(words, rapid.StringN(0, 300, -1)).Draw(t, "comment")
		r := nft.NewRuleset()
		chain, set, verdicts := name("chain"), name("set"), name("map")
		if set == verdicts {
			return
		}
		r.AddSet(&nft.Set{Name: set, Key: []nft.Field{nft.SrcAddr4}, Comment: comment})
		r.AddSet(&nft.Set{Name: verdicts, Key: []nft.Field{nft.SrcAddr4}, Verdicts: true,
			Comment: comment, Elements: map[nft.Element]nft.Verdict{
				nft.AddrElement(nfttest.Addr("10.0.0.1")): nft.JumpTo(chain),
			}})
		r.AddChain(&nft.Chain{Name: chain,
			Rules: []nft.Rule{
				{Statements: []nft.Statement{nft.InSet{[]nft.Field{nft.SrcAddr4}, set},
					nfttest.Accept}, Comment: comment}}})
		if user := nft.Name("user", "of", chain); user != chain {
			r.AddChain(&nft.Chain{Name: user, Rules: []nft.Rule{
				nfttest.Rule(nfttest.Jump(chain)),
				nfttest.Rule(nft.Dispatch{[]nft.Field{nft.SrcAddr4}, verdicts}),
			}})
		}
		mustSyncRapid(t, written, r)
		if list, err := written.Check(t.Context()); err != nil || len(list) > 0 {
			t.Fatalf("Check: %v\n%s", err, strings.Join(list, "\n"))
		}
		listing, err := n.Try("", "list", "table", "inet", nft.TableName)
		if err != nil {
			t.Fatalf("nft list: %v\n%s", err, listing)
		}
		if out, err := n.Try(listing, "-c", "-f", "-"); err != nil {
			t.Fatalf("nft -c: %v\n%s\n%s", err, out, listing)
		}
	})
}
