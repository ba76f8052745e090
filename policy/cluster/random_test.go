package cluster_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/test/randomcluster"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
)

func checkSame(t *rapid.T, r *replica, w *randomcluster.World) {
	scratch := newReplica()
	c := w.Build()
	if err := scratch.apply(c, c.Take()); err != nil {
		t.Fatalf("from scratch: %v", err)
	}
	opts := cmp.Options{cmp.AllowUnexported(replica{}),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(scratch, r, opts); diff != "" {
		t.Fatalf("incremental differs from scratch (-scratch +incremental):\n%s", diff)
	}
}

// checkReplica holds the evaluator against the compiled model.
func checkReplica(t *rapid.T, c *cluster.Cluster, r *replica) {
	ends := append(slices.Clone(randomcluster.Addresses), randomcluster.Strangers...)
	for _, source := range ends {
		for _, destination := range ends {
			if source.Is4() != destination.Is4() {
				continue
			}
			for _, protocol := range []uint8{1, policy.ProtocolTCP, policy.ProtocolUDP,
				policy.ProtocolSCTP} {
				for _, port := range randomcluster.Ports {
					f := policy.Flow{Source: source, Destination: destination, Protocol: protocol,
						Port: port}
					checkFlow(t, c, r, f)
				}
			}
		}
	}
}

// checkFlow compares decisions direction by direction for local endpoints.
func checkFlow(t *rapid.T, c *cluster.Cluster, r *replica, f policy.Flow) {
	a := c.Explain(f)
	if a.Exempt != "" {
		return
	}
	for _, e := range r.endpoints {
		for d, at := range map[policy.Direction]netip.Addr{policy.Egress: f.Source,
			policy.Ingress: f.Destination} {
			if !slices.Contains(e.Addresses, at) {
				continue
			}
			decision := a.Ingress
			if d == policy.Egress {
				decision = a.Egress
			}
			if decision == nil {
				t.Fatalf("%v: %s of endpoint %s: the evaluator doesn't judge it", f, d, e.ID)
			}
			if got := r.allows(e, d, f); got != decision.Allowed {
				t.Fatalf("%v: compiled model allows %v, evaluator: %s", f, got, decision)
			}
		}
	}
}

// TestIncrementalEqualsFromScratch: whatever the events and whenever Take is called, the reader of
// the changes ends where a new Cluster begins, and the evaluator agrees with what was compiled.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		c, r, w := cluster.New(opts), newReplica(), randomcluster.NewWorld(opts)
		for i := range rapid.IntRange(1, 40).Draw(t, "events") {
			w.Event(t, c)
			if err := c.CheckCounts(); err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 3).Draw(t, fmt.Sprintf("take %d", i)) == 0 {
				if err := r.apply(c, c.Take()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
		if ch := c.Take(); !ch.Empty() {
			t.Fatalf("a second Take reports changes: %+v", ch)
		}
		checkSame(t, r, w)
		checkReplica(t, c, r)
	})
}

// TestAllEqualsTheSumOfTakes: All describes the same state.
func TestAllEqualsTheSumOfTakes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		opts := randomcluster.Options(t)
		c, r, w := cluster.New(opts), newReplica(), randomcluster.NewWorld(opts)
		for range rapid.IntRange(1, 20).Draw(t, "events") {
			w.Event(t, c)
		}
		if err := r.apply(c, c.Take()); err != nil {
			t.Fatal(err)
		}
		all := newReplica()
		if err := all.apply(c, c.All()); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(all, r) {
			t.Fatalf("All: %+v\nTakes: %+v", all, r)
		}
	})
}
