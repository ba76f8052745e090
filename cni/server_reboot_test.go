package cni

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestServerAfterReboot: a server that finds a state directory of before the reboot has only what was attached since.
func TestServerAfterReboot(t *testing.T) {
	t.Parallel()
	r := openRecords(t.TempDir())
	a, b := newAttachment("c1", "pod-a", "10.1.0.1"), newAttachment("c2", "pod-b", "10.1.0.2")
	if err := errors.Join(r.write(a), r.write(b)); err != nil {
		t.Fatal(err)
	}
	ofThisBoot, err := os.ReadFile(r.path("c1", "eth0"))
	if err != nil {
		t.Fatal(err)
	}
	ofBefore := strings.ReplaceAll(string(ofThisBoot), r.bootID, "the-boot-before")
	if err := os.WriteFile(r.path("c1", "eth0"), []byte(ofBefore), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := NewServer(ServerOptions{Socket: "/nowhere", StateDir: filepath.Dir(r.dir()), Enforcer: &fakeEnforcer{}})
	if err != nil {
		t.Fatal(err)
	}
	if all := server.Attachments(); len(all) != 1 || all[0].ID() != "c2/eth0" {
		t.Errorf("the server has %v, want c2", all)
	}
}
