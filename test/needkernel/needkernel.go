// Package needkernel says which tests need something of the kernel that not every kernel has.
// "make kernels" runs them on kernels that have it.
package needkernel

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Module has a module of the kernel loaded, for all network namespaces and for good, or skips the
// test and names the module. Its name is that in /sys/module, with underscores.
func Module(t testing.TB, name string) {
	t.Helper()
	if loaded(t, name) {
		return
	}
	out, err := exec.Command("modprobe", name).CombinedOutput()
	if err != nil || !loaded(t, name) {
		t.Skipf("needs a kernel with the module %s: modprobe: %v, %s", name, err,
			strings.TrimSpace(string(out)))
	}
}

// Unload takes a module out of the kernel, and has it back when the test ends. That touches all of
// the machine: so it skips the test unless SLUICE_KERNEL=own says that nobody else uses the kernel.
// The test must not run beside others.
func Unload(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("SLUICE_KERNEL") != "own" {
		t.Skipf("unloads the module %s: needs a machine of its own, and SLUICE_KERNEL=own", name)
	}
	if out, err := exec.Command("rmmod", name).CombinedOutput(); err != nil {
		t.Skipf("needs the module %s to be one that can be unloaded: %v, %s", name, err,
			strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() { Module(t, name) })
}

// loaded also knows what is built in, if it has a parameter or a version.
func loaded(t testing.TB, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join("/sys/module", name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// Program skips the test, and names the program, where there is none.
func Program(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs the program %s: %v", name, err)
	}
}
