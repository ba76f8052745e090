package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
	"github.com/sluice-net/sluice/test/cnitest"
)

// steps of an ADD, in order; between each two the agent may die.
var steps = []string{"taken", "recorded", "forgotten", "attached", "opened"}

// crashedAt is an agent after one that was killed at a step of the ADD of container c1, of pod-a.
// The files are all that outlives an agent, each is replaced as a whole, and what is on disk at a
// step is what a new one finds.
func crashedAt(t *testing.T,
	step string) (after *testAgent, lost cni.AddRequest, lostAddresses string) {
	t.Helper()
	snapshot := filepath.Join(t.TempDir(), "state")
	var stateDir string
	var armed atomic.Bool
	a := newAgent(t, func(o *Options) {
		stateDir = o.StateDir
		o.step = func(name string) {
			if name == step && armed.CompareAndSwap(true, false) {
				copyState(t, snapshot, stateDir)
			}
		}
	})
	a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/29"))
	a.testAdd("c0", "pod-0")
	lost = cnitest.RequestFor("c1", "pod-a")
	armed.Store(true)
	lostAddresses = cnitest.AddressText(a.MustAdd(lost).Addresses)
	a.Stop()
	for _, name := range []string{"attachments", "addresses.json", "heartbeat.json"} {
		if err := os.RemoveAll(filepath.Join(stateDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyState(t, stateDir, snapshot)
	a.Enforcer.Forget()
	a.Start()
	a.server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/29"))
	return a, lost, lostAddresses
}

func (a *testAgent) testAdd(container, pod string) { a.MustAdd(cnitest.RequestFor(container, pod)) }

// copyState copies regular files only: not the socket.
func copyState(t *testing.T, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		case entry.Type().IsRegular():
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(target, data, 0o600))
		}
		return nil
	})
	if err != nil {
		t.Errorf("copying the state: %v", err)
	}
}

// TestCrash: wherever an agent dies between taking an address and its answer, the address comes
// back into service, however the runtime goes on, and until then it is nobody else's.
func TestCrash(t *testing.T) {
	t.Parallel()
	goOn := map[string]func(a *testAgent, lost cni.AddRequest){
		"with DEL": func(a *testAgent, lost cni.AddRequest) { a.MustDel(lost) },
		"with ADD again, then DEL": func(a *testAgent, lost cni.AddRequest) {
			a.MustAdd(lost)
			a.Expect("c0/eth0", "c1/eth0")
			a.MustDel(lost)
		},
		"with a new sandbox, whose DEL comes": func(a *testAgent, lost cni.AddRequest) {
			again := lost
			again.ContainerID = "c9"
			a.MustAdd(again)
			a.MustDel(again)
			a.MustDel(lost)
		},
		"with GC": func(a *testAgent, lost cni.AddRequest) {
			// as the plugin's GC does without an answer
			if err := a.server.records.Remove(lost.ContainerID, lost.IfName); err != nil {
				a.T.Fatal(err)
			}
			a.server.Reap(a.T.Context())
		},
		"with nothing, as its pod is gone": func(a *testAgent, _ cni.AddRequest) {
			a.Clock.Advance(addGrace + 1)
			a.reapAllBut("c0/eth0")
		},
	}
	for _, step := range steps {
		for name, goOn := range goOn {
			t.Run(step+", "+name, func(t *testing.T) {
				t.Parallel()
				a, lost, lostAddresses := crashedAt(t, step)
				a.testAdd("c0", "pod-0") // so that the enforcement knows it again
				got := a.MustAdd(cnitest.RequestFor("c2", "pod-b"))
				if cnitest.AddressText(got.Addresses) == lostAddresses {
					t.Errorf("%s is given to another at once", lostAddresses)
				}
				a.MustDel(cnitest.RequestFor("c2", "pod-b"))
				goOn(a, lost)
				a.Expect("c0/eth0")
				a.Clock.Advance(defaultCoolDown)
				var all []string
				for i := range 5 { // all that a /29 has, but c0's
					all = append(all,
						cnitest.AddressText(a.MustAdd(cnitest.RequestFor(fmt.Sprint("d", i),
							fmt.Sprint("pod-d", i))).Addresses))
				}
				if !strings.Contains(strings.Join(all, " "), lostAddresses) {
					t.Errorf("%s isn't among %s", lostAddresses, all)
				}
				onDisk, _, _ := a.server.records.ReadAll()
				diff := cmp.Diff(a.server.Attachments(), onDisk, cmp.Comparer(cnitest.SameAddr))
				if diff != "" {
					t.Errorf("attachments in memory and on disk:\n%s", diff)
				}
			})
		}
	}
}

// reapAllBut reaps twice, as the kernel of a node would have it where only these attachments still
// have a link.
func (a *testAgent) reapAllBut(ids ...string) {
	a.T.Helper()
	for range 2 {
		a.server.reapGone(a.T.Context(), a.linksOf(ids))
	}
}

func (a *testAgent) linksOf(ids []string) []podlink.Link {
	var links []podlink.Link
	for _, attachment := range a.server.Attachments() {
		for _, id := range ids {
			if attachment.ID() == id {
				links = append(links, podlink.Link{Name: attachment.Interface,
					MAC: attachment.HostMAC().String(), IsUp: true})
			}
		}
	}
	return links
}
