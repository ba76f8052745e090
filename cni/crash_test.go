package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// steps of an ADD, in order; between each two the agent may die.
var steps = []string{"taken", "recorded", "forgotten", "attached", "opened"}

// crashedAt is an agent after one that was killed at a step of the ADD of container c1, of pod-a. The files are all that outlives an
// agent, each is replaced as a whole, and what is on disk at a step is what a new one finds.
func crashedAt(t *testing.T, step string) (after *testAgent, lost AddRequest, lostAddresses string) {
	t.Helper()
	snapshot := filepath.Join(t.TempDir(), "state")
	var stateDir string
	var armed bool
	a := newAgent(t, func(o *ServerOptions) {
		stateDir = o.StateDir
		o.step = func(name string) {
			if armed && name == step {
				armed = false
				copyState(t, snapshot, stateDir)
			}
		}
	})
	a.server.SetPodCIDRs(prefixes("10.1.0.0/29"))
	a.testAdd("c0", "pod-0")
	lost = requestFor("c1", "pod-a")
	armed = true
	lostAddresses = addressText(a.mustAdd(lost).Addresses)
	a.stop()
	for _, name := range []string{"attachments", "addresses.json", "heartbeat.json"} {
		if err := os.RemoveAll(filepath.Join(stateDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyState(t, stateDir, snapshot)
	a.enforcer.forget()
	a.start()
	a.server.SetPodCIDRs(prefixes("10.1.0.0/29"))
	return a, lost, lostAddresses
}

func (a *testAgent) testAdd(container, pod string) { a.mustAdd(requestFor(container, pod)) }

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

// TestCrash: wherever an agent dies between taking an address and its answer, the address comes back into service, however the runtime
// goes on, and until then it is nobody else's.
func TestCrash(t *testing.T) {
	t.Parallel()
	goOn := map[string]func(a *testAgent, lost AddRequest){
		"with DEL": func(a *testAgent, lost AddRequest) { a.mustDel(lost) },
		"with ADD again, then DEL": func(a *testAgent, lost AddRequest) {
			a.mustAdd(lost)
			a.expect("c0/eth0", "c1/eth0")
			a.mustDel(lost)
		},
		"with a new sandbox, whose DEL comes": func(a *testAgent, lost AddRequest) {
			again := lost
			again.ContainerID = "c9"
			a.mustAdd(again)
			a.mustDel(again)
			a.mustDel(lost)
		},
		"with GC": func(a *testAgent, lost AddRequest) {
			if err := a.server.records.remove(lost.ContainerID, lost.IfName); err != nil { // as the plugin's GC does without an answer
				a.t.Fatal(err)
			}
			a.server.reap(a.t.Context())
		},
		"with nothing, as its pod is gone": func(a *testAgent, _ AddRequest) {
			a.clock.advance(addGrace + 1)
			a.reapAllBut("c0/eth0")
		},
	}
	for _, step := range steps {
		for name, goOn := range goOn {
			t.Run(step+", "+name, func(t *testing.T) {
				t.Parallel()
				a, lost, lostAddresses := crashedAt(t, step)
				a.testAdd("c0", "pod-0") // so that the enforcement knows it again
				if got := a.mustAdd(requestFor("c2", "pod-b")); addressText(got.Addresses) == lostAddresses {
					t.Errorf("%s is given to another at once", lostAddresses)
				}
				a.mustDel(requestFor("c2", "pod-b"))
				goOn(a, lost)
				a.expect("c0/eth0")
				a.clock.advance(defaultCoolDown)
				var all []string
				for i := range 5 { // all that a /29 has, but c0's
					all = append(all, addressText(a.mustAdd(requestFor(fmt.Sprint("d", i), fmt.Sprint("pod-d", i))).Addresses))
				}
				if !strings.Contains(strings.Join(all, " "), lostAddresses) {
					t.Errorf("%s isn't among %s", lostAddresses, all)
				}
				onDisk, _, _ := a.server.records.readAll()
				if diff := cmp.Diff(a.server.Attachments(), onDisk, cmp.Comparer(sameAddr)); diff != "" {
					t.Errorf("attachments in memory and on disk:\n%s", diff)
				}
			})
		}
	}
}

// reapAllBut reaps twice, as the kernel of a node would have it where only these attachments still have a link.
func (a *testAgent) reapAllBut(ids ...string) {
	a.t.Helper()
	for range 2 {
		a.server.reapGone(a.t.Context(), a.linksOf(ids))
	}
}

func (a *testAgent) linksOf(ids []string) []nodeLink {
	var links []nodeLink
	for _, attachment := range a.server.Attachments() {
		for _, id := range ids {
			if attachment.ID() == id {
				links = append(links, nodeLink{attachment.Interface, attachment.HostMAC().String(), true})
			}
		}
	}
	return links
}
