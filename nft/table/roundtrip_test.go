package table

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/attribute"
	"github.com/sluice-net/sluice/internal/nftsocket"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/nfttest"
)

// counters is what a listing has besides what the ruleset says.
var counters = regexp.MustCompile(`counter packets \d+ bytes \d+`)

// isNFT11 reports whether the stock tool is of 1.1, which says some things in other words.
func isNFT11(n *nfttest.Namespace) bool {
	return strings.HasPrefix(n.Nft("--version"), "nftables v1.1.")
}

// asBefore puts what nft 1.1 lists in the words of nft 1.0, which are those of String: it names all
// priorities, and says each burst.
var asBefore = strings.NewReplacer("hook output priority dstnat", "hook output priority -100",
	"hook input priority srcnat", "hook input priority 100", " burst 5 packets", "")

// listedRules are the lines of a chain in nft's listing.
func listedRules(t *testing.T, listing, chain string) []string {
	t.Helper()
	_, rest, found := strings.Cut(listing, "\tchain "+chain+" {\n")
	if !found {
		t.Fatalf("nft doesn't list chain %s:\n%s", chain, listing)
	}
	body, _, _ := strings.Cut(rest, "\t}\n")
	var lines []string
	for line := range strings.Lines(body) {
		lines = append(lines, counters.ReplaceAllString(strings.TrimSpace(line), "counter"))
	}
	return lines
}

// Every statement and set kind survives the way to the kernel and back, nft lists the rules in the
// very words of String, and reads its listing back.
func TestEverythingRoundTrips(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	want := everything()
	mustSync(t, table, want.Clone())
	mustMatch(t, table)

	listing := n.Nft("list", "table", "inet", nft.TableName)
	inOldWords := listing
	if isNFT11(n.Namespace) {
		inOldWords = asBefore.Replace(listing)
	}
	for name := range want.Chains {
		lines := listedRules(t, want.String(), name)
		if got := listedRules(t, inOldWords, name); !slices.Equal(got, lines) {
			t.Errorf("chain %s: nft lists\n%s\nString says\n%s", name, strings.Join(got, "\n"),
				strings.Join(lines, "\n"))
		}
	}
	for name, set := range want.Sets {
		definition := "\t" + set.Kind() + " " + name + " {\n\t\ttype " + set.TypeString() + "\n"
		if !strings.Contains(listing, definition) {
			t.Errorf("nft doesn't list %q", definition)
		}
		for e, v := range set.Elements {
			text := set.ElementString(e, v)
			if v.Kind == nft.NATTo && !strings.Contains(listing, text) {
				t.Errorf("nft doesn't list element %q of %s", text, name)
			}
		}
		if set.Comment != "" && !strings.Contains(listing, `comment "what `+name+` holds"`) {
			t.Errorf("nft doesn't list the comment of set %s", name)
		}
	}
	n.MustParse(listing)
	n.MustParse(n.Nft("list", "ruleset"))
}

// What nft makes of String's text is the ruleset itself.
func TestTextIsWhatNFTReads(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	want := everything()
	n.Load(want.String())
	table := n.open(Options{})
	got, err := table.conn.Read(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range got.Differences(want) {
		// nft 1.0.6 adds an expression that swaps the bytes of the one byte; nft 1.1 has an
		// expression of its own for a range, where ours compares twice.
		isSwap := strings.Contains(line, "th dport . meta l4proto @set/ports")
		isRange := isNFT11(n.Namespace) && strings.Contains(line, "[ range ")
		if !isSwap && !isRange {
			t.Error(line)
		}
	}
}

func TestSecondSyncDoesNothing(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, everything())
	before, flushes := generation(t, n), table.flushes
	mustSync(t, table, everything())
	if table.flushes != flushes || generation(t, n) != before {
		t.Errorf("a second Sync made %d transactions", table.flushes-flushes)
	}
}

// A new agent adopts what the last one left.
func TestAdopt(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	first := n.open(Options{})
	mustSync(t, first, everything())
	before := generation(t, n)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := n.open(Options{})
	mustSync(t, second, everything())
	if second.flushes != 0 || generation(t, n) != before {
		t.Errorf("adopting made %d transactions", second.flushes)
	}
	// It goes on from there, incrementally.
	mustApply(t, second, nft.Patch{Sets: map[string]*nft.SetPatch{
		"set/hosts4": {Put: map[nft.Element]nft.Verdict{nft.AddrElement(addr("10.0.0.77")): {}}},
	}})
	if second.flushes != 1 {
		t.Errorf("a one-element patch made %d transactions", second.flushes)
	}
	if !strings.Contains(n.Nft("list", "set", "inet", nft.TableName, "set/hosts4"), "10.0.0.77") {
		t.Error("the element isn't there")
	}
}

func TestEmptyRulesetMakesTheTable(t *testing.T) {
	t.Parallel()
	n := newNamespace(t)
	table := n.open(Options{})
	mustSync(t, table, nft.NewRuleset())
	if got := n.Nft("list", "tables"); got != "table inet sluice\n" {
		t.Errorf("tables: %q", got)
	}
	mustMatch(t, table)
}

// generation is the number of the last change of the namespace's ruleset.
func generation(t *testing.T, n *namespace) uint32 {
	t.Helper()
	socket, err := nftsocket.Dial(int(n.NS.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	replies, err := socket.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN,
			Flags: netlink.Request},
		Data: make([]byte, nfgenHeader),
	})
	if err != nil || len(replies) != 1 {
		t.Fatalf("%d replies: %v", len(replies), err)
	}
	for kind, value := range attribute.All(replies[0].Data[nfgenHeader:]) {
		if id := binary.BigEndian.Uint32(value); kind == unix.NFTA_GEN_ID && id != 0 {
			return id
		}
	}
	t.Fatal("the kernel doesn't say the generation")
	return 0
}
