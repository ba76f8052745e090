package server

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/needroot"
	"github.com/sluice-net/sluice/test/testdisk"
)

// TestStartWaitsForNoDisk: an agent that starts knows its pods while the disk hangs, and can put
// their policy into the kernel. What is to be written, its first beat writes, which does hang.
func TestStartWaitsForNoDisk(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.MustAdd(cnitest.RequestFor("c1", "pod-a"))
	a.Stop()
	ledger := a.server.records.LedgerPath()
	if err := os.Remove(ledger); err != nil {
		t.Fatal(err)
	}
	var server *Server
	hangs, err := testdisk.HangingSync(func() (err error) {
		server, err = New(Options{Socket: a.Socket, StateDir: a.StateDir, Enforcer: a.Enforcer,
			NetNS: cnitest.NoNetNS{}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if hangs {
		t.Error("the start waits for the disk")
	}
	if all := server.Attachments(); len(all) != 1 || all[0].ID() != "c1/eth0" {
		t.Errorf("it knows %v, want c1", all)
	}
	hangs, err = testdisk.HangingSync(func() error { server.beat(); return nil })
	if !hangs || err != nil {
		t.Errorf("the first beat syncs nothing (%v): what should have hung the start?", err)
	}
	server.beat()
	if _, err := os.Stat(ledger); err != nil {
		t.Errorf("the ledger: %v", err)
	}
}

// TestFailedAddLeavesNoRecord: where a record is written, but its directory can't be synced, which
// is the last step, the pod isn't attached and has no record, and its address goes to the next one.
// A pod that had a record keeps it. The control is a directory that can be synced.
func TestFailedAddLeavesNoRecord(t *testing.T) {
	t.Parallel()
	needroot.Skip(t)
	const nobody = 65534 // may make files in a directory of mode 0300, but not open it
	a := newAgent(t)
	a.Stop()
	state, err := os.Open(a.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	a.StateDir = fmt.Sprintf("/proc/self/fd/%d", state.Fd()) // a path that nobody can walk
	server := a.newServer().(*Server)
	server.SetPodCIDRs(cnitest.Prefixes("10.1.0.0/24"))
	server.SetDatapathReady(true, "")
	records := server.records.Dir()
	for _, dir := range []string{a.StateDir + "/", records} {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	add := func(name string, mode os.FileMode) (got cni.AddAnswer, err error) {
		if err := os.Chmod(records, mode); err != nil {
			t.Fatal(err)
		}
		err = testdisk.OnThread(func() error {
			if err := unix.Setfsuid(nobody); err != nil {
				return err
			}
			got, err = server.add(t.Context(), cnitest.RequestFor(name, name))
			return err
		})
		return got, err
	}
	expect := func(ids ...string) {
		t.Helper()
		onDisk, bad, err := server.records.ReadAll()
		var got []string
		for _, one := range onDisk {
			got = append(got, one.ID())
		}
		if err != nil || len(bad) > 0 || !slices.Equal(got, ids) ||
			len(server.Attachments()) != len(ids) {
			t.Errorf("recorded are %q, bad %v, error %v, attached %v; want %q", got, bad, err,
				server.Attachments(), ids)
		}
	}
	const canSync, cannotSync = 0o700, 0o300
	first, err := add("c1", canSync)
	if err != nil {
		t.Fatal(err)
	}
	expect("c1/eth0")
	for _, name := range []string{"c1", "c2"} {
		_, err = add(name, cannotSync)
		cnitest.MustFail(t, err, types.ErrTryAgainLater, "the pod can't be recorded",
			"permission denied")
		expect("c1/eth0")
	}
	second, err := add("c3", canSync)
	if err != nil {
		t.Fatal(err)
	}
	expect("c1/eth0", "c3/eth0")
	if is, was := second.Addresses[0].Addr(), first.Addresses[0].Addr(); is == was {
		t.Errorf("%s is given twice", is)
	}
	if pool := server.Stats().Pools[0]; pool.Cooling > 0 || pool.InUse != 2 {
		t.Errorf("the addresses are %+v, want two that are used", pool)
	}
}
