package nft

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var elementList = regexp.MustCompile(`elements = \{([^}]*)\}`)

// listing is what nft lists, without running values, objects and elements in
// a fixed order: those of a hash table have none.
func listing(n *namespace) string {
	n.Helper()
	out := n.nft("-s", "list", "table", "inet", TableName)
	out = elementList.ReplaceAllStringFunc(out, func(list string) string {
		var items []string
		for item := range strings.SplitSeq(elementList.FindStringSubmatch(list)[1], ",") {
			items = append(items, strings.TrimSpace(item))
		}
		slices.Sort(items)
		return "elements = { " + strings.Join(items, ", ") + " }"
	})
	body := strings.TrimSuffix(strings.TrimPrefix(out, "table inet sluice {\n"), "}\n")
	objects := strings.Split(strings.Trim(body, "\n"), "\n\n")
	slices.Sort(objects)
	return strings.Join(objects, "\n")
}

// The way to a state leaves no trace: states visited one after another, by
// patches or by Sync, in transactions of any size, end in the same listing as
// the last state alone.
func TestPathsDoNotMatter(t *testing.T) {
	t.Parallel()
	walked, direct := newNamespace(t), newNamespace(t)
	rapid.Check(t, func(t *rapid.T) {
		opts := Options{MaxMessages: rapid.IntRange(1, 20).Draw(t, "messages")}
		opts.NetNS = int(walked.ns.Fd())
		table, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		state := genRuleset(t, "state 0")
		mustSyncRapid(t, table, state)
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			next := genRuleset(t, "state")
			if rapid.Bool().Draw(t, "by patch") {
				if err := table.Apply(t.Context(), Diff(state, next.Clone())); err != nil {
					t.Fatalf("Apply: %v\n%s\n%s", err, state, next)
				}
			} else {
				mustSyncRapid(t, table, next)
			}
			state = next
			if list, err := table.Check(t.Context()); err != nil || len(list) > 0 {
				t.Fatalf("Check: %v\n%s", err, strings.Join(list, "\n"))
			}
		}

		if out, err := direct.try("", "flush", "ruleset"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		opts.NetNS = int(direct.ns.Fd())
		fresh, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		mustSyncRapid(t, fresh, state)
		if got, want := listing(walked), listing(direct); got != want {
			t.Fatalf("walked\n%s\ndirect\n%s", got, want)
		}
	})
}

func mustSyncRapid(t *rapid.T, table *Table, want *Ruleset) {
	t.Helper()
	if err := table.Sync(t.Context(), want.Clone()); err != nil {
		t.Fatalf("Sync: %v\n%s", err, want)
	}
}
