package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestServerAfterReboot: a server that finds a state directory of before the reboot has only what
// was attached since.
func TestServerAfterReboot(t *testing.T) {
	t.Parallel()
	r := cni.OpenRecords(t.TempDir())
	a, b := cnitest.NewAttachment("c1", "pod-a", "10.1.0.1"),
		cnitest.NewAttachment("c2", "pod-b", "10.1.0.2")
	if err := errors.Join(r.Write(a), r.Write(b)); err != nil {
		t.Fatal(err)
	}
	ofThisBoot, err := os.ReadFile(r.Path("c1", "eth0"))
	if err != nil {
		t.Fatal(err)
	}
	ofBefore := strings.ReplaceAll(string(ofThisBoot), r.BootID, "the-boot-before")
	if err := os.WriteFile(r.Path("c1", "eth0"), []byte(ofBefore), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := New(Options{Socket: "/nowhere", StateDir: filepath.Dir(r.Dir()),
		Enforcer: &cnitest.Enforcer{}})
	if err != nil {
		t.Fatal(err)
	}
	if all := server.Attachments(); len(all) != 1 || all[0].ID() != "c2/eth0" {
		t.Errorf("the server has %v, want c2", all)
	}
}
