package conntrack

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/test/testnet"
)

// labelRule makes room for labels in the entries that come after it. It sets one, as the agent's
// table does: where a rule only matches one, older kernels (6.1) make no room.
const labelRule = "table inet t {\n chain c {\n ct label set 127\n }\n}\n"

var someFlows = []testnet.Tracked{
	testnet.Plain(tcp, "10.1.0.2:1000", "198.51.100.1:80"),
	testnet.Plain(udp, "198.51.100.1:1000", "10.1.0.2:53"),
	testnet.Translated(tcp, "198.51.100.1:1000", "192.0.2.1:30080", "10.1.0.2:8080",
		"198.51.100.1:1000"),
	testnet.Plain(udp, "[fd00:1::2]:1000", "[2001:db8::1]:53"),
}

// labels are those of all entries, by tuple.
func labels(table *Table) (map[string]Labels, error) {
	out := map[string]Labels{}
	_, err := table.Find([]Query{{}}, func(e *Entry) bool {
		out[fmt.Sprint(e.Orig)] = e.Labels
		return false
	})
	return out, err
}

// Any bits of any entries are set and cleared: those bits change, and nothing else.
func TestSetLabelChangesOneBitOfOneEntry(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	node.NftInput(labelRule)
	in(t, node, func() error {
		if err := testnet.Track(someFlows...); err != nil {
			return err
		}
		table, err := Open()
		if err != nil {
			return err
		}
		defer table.Close()
		want, err := labels(table)
		if err != nil || len(want) != len(someFlows) {
			return fmt.Errorf("found %v: %w", want, err)
		}
		entries, err := table.Find([]Query{{}}, func(*Entry) bool { return true })
		if err != nil {
			return err
		}
		rapid.Check(t, func(t *rapid.T) {
			for range rapid.IntRange(1, 6).Draw(t, "steps") {
				e := &entries[rapid.IntRange(0, len(entries)-1).Draw(t, "entry")]
				bit, on := rapid.Uint8Max(maxLabel).Draw(t, "bit"), rapid.Bool().Draw(t, "on")
				if err := table.SetLabel(e, bit, on); err != nil {
					t.Fatal(err)
				}
				was := want[fmt.Sprint(e.Orig)]
				if mask := labelBit(bit); was.Has(bit) != on {
					for i := range was {
						was[i] ^= mask[i]
					}
				}
				want[fmt.Sprint(e.Orig)] = was
				got, err := labels(table)
				if err != nil {
					t.Fatal(err)
				}
				for name := range want {
					if got[name] != want[name] || got[fmt.Sprint(e.Orig)].Has(bit) != on {
						t.Fatalf("after bit %d of %v became %v: %s has %x, want %x", bit, e.Orig,
							on, name, got[name], want[name])
					}
				}
			}
		})
		return nil
	})
}

// An entry that is older than the first rule which names labels has no room, and says so; it can be
// deleted.
func TestNoRoomForLabels(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	in(t, node, func() error {
		if err := testnet.Track(someFlows...); err != nil {
			return err
		}
		table, err := Open()
		if err != nil {
			return err
		}
		defer table.Close()
		old, err := table.Find([]Query{{}}, func(*Entry) bool { return true })
		if err != nil || len(old) != len(someFlows) {
			return fmt.Errorf("found %v: %w", old, err)
		}
		node.NftInput(labelRule)
		for i := range old {
			if err := table.SetLabel(&old[i], maxLabel, true); !errors.Is(err, ErrNoRoom) {
				t.Errorf("%v: got %v, want ErrNoRoom", old[i].Orig, err)
			}
			if err := table.Delete(&old[i]); err != nil {
				return err
			}
		}
		if err := testnet.Track(someFlows...); err != nil {
			return err
		}
		for i := range old {
			if err := table.SetLabel(&old[i], maxLabel, true); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
}

// What is gone can be labelled and deleted without error, and comes into being by neither; what
// came after it under the same tuple isn't deleted in its place.
func TestGoneEntries(t *testing.T) {
	t.Parallel()
	node := testnet.NewNode(t)
	node.NftInput(labelRule)
	in(t, node, func() error {
		table, err := Open()
		if err != nil {
			return err
		}
		defer table.Close()
		if err := testnet.Track(someFlows[0]); err != nil {
			return err
		}
		old, err := table.Find([]Query{{}}, func(*Entry) bool { return true })
		if err != nil || len(old) != 1 {
			return fmt.Errorf("found %v: %w", old, err)
		}
		for range 2 {
			if err := errors.Join(table.Delete(&old[0]),
				table.SetLabel(&old[0], 1, true)); err != nil {
				t.Error(err)
			}
		}
		if left, err := testnet.TrackedNow(); err != nil || len(left) != 0 {
			t.Errorf("left are %v, %v", left, err)
		}
		// The kernel makes an entry's number of its place in memory among others. So others take
		// the place first.
		for i := range 20 {
			err := testnet.Track(append(testnet.Crowd(10*(i+1), 0), someFlows[0])...)
			if err != nil {
				return err
			}
			if err := table.Delete(&old[0]); err != nil {
				t.Error(err)
			}
			left, err := testnet.TrackedNow()
			if err != nil || slices.Contains(left, someFlows[0].String()) {
				return err
			}
			if err := table.deleteAll(); err != nil {
				return err
			}
		}
		t.Error("deleting the old entry deletes the new one")
		return nil
	})
}

// deleteAll empties the table.
func (t *Table) deleteAll() error {
	all, err := t.Find([]Query{{}}, func(*Entry) bool { return true })
	for i := range all {
		err = errors.Join(err, t.Delete(&all[i]))
	}
	return err
}
