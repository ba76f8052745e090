package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/selector"
)

// Whatever a record has, it is what comes back, and snapshots stay as they were.
func TestShelfKeepsRecords(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, want := newShelf(), map[selector.Number]*podRecord{}
		var free []selector.Number
		type snapshot struct {
			shelf *shelf
			want  map[selector.Number]*podRecord
		}
		var snapshots []snapshot
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				r := anyRecord(t)
				r.number = selector.Number(s.size)
				if len(free) > 0 {
					r.number, free = free[0], free[1:]
				}
				s.put(r)
				want[r.number] = r
			},
			"drop": func(t *rapid.T) {
				if len(want) > 0 {
					n := rapid.SampledFrom(sortedNumbers(want)).Draw(t, "number")
					s.drop(n)
					delete(want, n)
					free = append(free, n)
				}
			},
			"snapshot": func(*rapid.T) {
				snapshots = append(snapshots, snapshot{s.snapshot(), maps.Clone(want)})
			},
			"": func(t *rapid.T) {
				for n, r := range want {
					if got := s.get(n); !reflect.DeepEqual(got, r) {
						t.Fatalf("%v instead of %v", got, r)
					}
				}
				for _, s := range append(snapshots, snapshot{s, want}) {
					got := map[selector.Number]*podRecord{}
					for r := range s.shelf.all() {
						got[r.number] = r
						if s.shelf.key(r.number) != r.Key() || s.shelf.id(r.number) != r.ID ||
							len(s.shelf.attachments(r.number)) != len(r.endpoints) {
							t.Fatalf("something else is said of %v", r)
						}
					}
					if !reflect.DeepEqual(got, s.want) {
						t.Fatalf("%v instead of %v", got, s.want)
					}
				}
			},
		})
	})
}

func sortedNumbers(m map[selector.Number]*podRecord) (out []selector.Number) {
	for n := selector.Number(0); len(out) < len(m); n++ {
		if m[n] != nil {
			out = append(out, n)
		}
	}
	return out
}

func anyRecord(t *rapid.T) *podRecord {
	addrs := rapid.SliceOfN(rapid.SampledFrom([]netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), {},
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"),
		netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("::ffff:10.0.0.1"),
	}), 0, 3)
	flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
	r := &podRecord{known: flag("known"), gone: flag("gone"), Pod: policy.Pod{
		ID: selector.Pod{Namespace: rapid.SampledFrom([]string{"", "dev"}).Draw(t, "namespace"),
			Name: rapid.SampledFrom([]string{"", "web"}).Draw(t, "name"),
			UID: rapid.SampledFrom([]string{"", "1", uuid.Nil.String(),
				"6BA7B810-9dad-11d1-80b4-00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
				"6ba7b8109dad11d180b400c04fd430c8"}).Draw(t, "uid")},
		Labels: selector.LabelSetOf(map[string]string{
			"app": rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app")}),
		Node:        rapid.SampledFrom([]string{"", "n1"}).Draw(t, "node"),
		HostNetwork: flag("host network"), Terminating: flag("terminating"),
		Finished: flag("finished"),
		Created: rapid.SampledFrom([]time.Time{{}, time.Unix(0, 0), time.Unix(1_800_000_000, 0),
			time.Unix(1_800_000_000, 5), time.Unix(1_800_000_000, 0).UTC(), time.Unix(-1, 0),
		}).Draw(t, "created"),
		Ports: rapid.SampledFrom([]policy.PodPorts{{},
			policy.PodPortsOf(policy.PodPort{NamedPort: policy.NamedPort{Name: "http", Protocol: 6},
				Number: 80})}).Draw(t, "ports"),
	}}
	if flag("addresses") {
		r.Addresses = addrs.Draw(t, "addresses")
	}
	switch {
	case flag("believed"):
		r.believed = r.Addresses
	case flag("partly"):
		r.believed = addrs.Draw(t, "believed")
	}
	if flag("attached") {
		r.endpoints = map[string]policy.Endpoint{"e": {ID: "e", Pod: r.ID}}
	}
	return r
}

// What fits is kept small, whatever is true of the pod.
func TestWhatFitsIsSmall(t *testing.T) {
	t.Parallel()
	addr4, addr6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	rapid.Check(t, func(t *rapid.T) {
		r := anyRecord(t)
		r.known, r.gone, r.endpoints = true, false, nil
		r.ID.UID = uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")).String()
		r.Created = time.Unix(rapid.Int64Range(1, 1<<40).Draw(t, "second"), 0)
		r.Addresses = rapid.SampledFrom([][]netip.Addr{nil, {addr4}, {addr6}, {addr4, addr6},
			{addr6, addr4}}).Draw(t, "its addresses")
		r.believed = nil
		if rapid.Bool().Draw(t, "are believed") {
			r.believed = r.Addresses
		}
		s := newShelf()
		s.put(r)
		if len(s.whole) > 0 {
			t.Fatalf("kept whole: %+v, as from %+v", r, s.at(0).record(0))
		}
	})
}

// A snapshot is read while the cluster changes.
func TestSnapshotBesideChanges(t *testing.T) {
	t.Parallel()
	c := New(Options{Node: "node-0"})
	for n := range 4 {
		c.SetNode(largeNode(n))
	}
	pod := func(i int) policy.Pod { return policy.PodFrom(largePod(1+i%3, i%200, i)) }
	const pods = 1200 // of several blocks
	for i := range pods {
		c.SetPod(pod(i))
	}
	for round := range 3 {
		snapshot := c.Snapshot()
		var reading sync.WaitGroup
		reading.Go(func() {
			snapshot.Meaning()
			n := 0
			for range snapshot.pods.records.all() {
				n++
			}
			if n != pods {
				t.Errorf("round %d: %d pods in the snapshot", round, n)
			}
		})
		for i := range pods {
			p := pod(i)
			c.DeletePod(p.ID.Namespace, p.ID.Name)
		}
		for i := range pods {
			c.SetPod(pod(i))
		}
		reading.Wait()
	}
}

// Pods of other nodes are kept small, as they come from an API server in either of its formats.
func TestPodsOfOthersAreSmall(t *testing.T) {
	t.Parallel()
	const added, most = 8, 8 << 10 // bytes, by Go to what it allocates
	pod, block := reflect.TypeFor[shelvedPod]().Size(), reflect.TypeFor[shelfBlock]().Size()
	if pod > 112 || block+added > most || block+added+pod <= most {
		t.Errorf("a shelved pod has %d bytes, and a block of them %d", pod, block)
	}
	c := New(Options{Node: "node-0"})
	for n := range 4 {
		c.SetNode(largeNode(n))
	}
	c.settle() // an agent has all nodes before it asks for pods
	pods := map[string]*corev1.Pod{}
	for _, name := range []string{"both", "only-4", "only-6", "6-first", "none", "host", "finished",
		"terminating"} {
		pods[name] = largePod(1+len(pods)%3, len(pods), len(pods))
		pods[name].Name = name
	}
	ips := pods["6-first"].Status.PodIPs
	ips[0], ips[1] = ips[1], ips[0]
	pods["only-4"].Status.PodIPs = pods["only-4"].Status.PodIPs[:1]
	pods["only-6"].Status.PodIPs = pods["only-6"].Status.PodIPs[1:]
	pods["none"].Status = corev1.PodStatus{}
	pods["host"].Spec.HostNetwork = true
	pods["terminating"].DeletionTimestamp = &pods["both"].CreationTimestamp
	pods["finished"].Status.Phase = corev1.PodSucceeded
	for name, pod := range pods {
		for format, again := range map[string]func() (*corev1.Pod, error){
			"JSON": func() (*corev1.Pod, error) {
				text, err := json.Marshal(pod)
				out := new(corev1.Pod)
				return out, orError(err, func() error { return json.Unmarshal(text, out) })
			},
			"protobuf": func() (*corev1.Pod, error) {
				text, err := pod.Marshal()
				out := new(corev1.Pod)
				return out, orError(err, func() error { return out.Unmarshal(text) })
			},
		} {
			decoded, err := again()
			if err != nil {
				t.Fatal(err)
			}
			c.SetPod(policy.PodFrom(decoded))
			key := policy.Key{Namespace: pod.Namespace, Name: name}
			r := c.pods.named(key)
			if r == nil || fmt.Sprint(r.Addresses) != fmt.Sprint(policy.PodFrom(pod).Addresses) {
				t.Errorf("%s, %s: %+v", name, format, r)
			}
			if len(c.pods.records.whole) > 0 {
				t.Errorf("%s, %s: kept whole: %+v", name, format, c.pods.records.whole)
			}
			c.DeletePod(key.Namespace, key.Name)
		}
	}
}

func orError(err error, then func() error) error {
	if err != nil {
		return err
	}
	return then()
}
