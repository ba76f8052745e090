package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/sluice-net/sluice/cni"
)

func TestInstallConflist(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "05-sluice.conflist")
	install := func(o ConflistOptions, wantChanged bool) string {
		t.Helper()
		state, err := Conflist(dir, o)
		if err != nil || state.Changed != wantChanged ||
			len(state.Before)+len(state.Appended) != 0 {
			t.Fatalf("got %+v, %v; want changed %t", state, err, wantChanged)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	got := install(ConflistOptions{}, true)
	want := `{
  "cniVersion": "1.0.0",
  "cniVersions": [
    "1.0.0",
    "1.1.0"
  ],
  "name": "sluice",
  "plugins": [
    {
      "type": "sluice",
      "capabilities": {
        "bandwidth": true,
        "portMappings": true
      }
    }
  ]
}
`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	install(ConflistOptions{Socket: cni.DefaultSocket,
		StateDir: cni.DefaultStateDir}, false)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	install(ConflistOptions{}, true) // others couldn't read it
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("got %v (%v), want mode 0644", info, err)
	}
	other := install(ConflistOptions{Socket: "/s",
		StateDir: "/d"}, true)
	for _, part := range []string{`"socket": "/s"`,
		`"stateDir": "/d"`} {
		if !strings.Contains(other, part) {
			t.Errorf("got %s, want %s", other, part)
		}
	}
	for range 2 {
		if kept, err := RemoveConflist(dir); err != nil || kept != "" {
			t.Errorf("kept %q, %v", kept, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%v is left (%v)", entries, err)
	}
}

// Runtimes read the file by this library: today's takes the newest version, and what is older than
// cniVersions sees the plain one.
func TestConflistIsReadByRuntimes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Conflist(dir, ConflistOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := libcni.LoadNetworkConf(dir, "sluice")
	if err != nil {
		t.Fatal(err)
	}
	if list.CNIVersion != "1.1.0" || len(list.Plugins) != 1 {
		t.Fatalf("got version %s and %d plugins", list.CNIVersion, len(list.Plugins))
	}
	p := list.Plugins[0].Network
	if p.Type != "sluice" || !p.Capabilities["portMappings"] || !p.Capabilities["bandwidth"] {
		t.Errorf("got %+v", p)
	}
}

// The file that a runtime takes first is named.
func TestSortedBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{
		"00-multus.conf", "04.conflist", "05-a.json", "05-sluice.conf", // before
		"05-sluice.conflist.bak", "10-flannel.conflist", "99-loopback.conf", // after
		"00-readme.txt", "01-old.conf.disabled", // not read
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "01-directory.conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	state, err := Conflist(dir, ConflistOptions{})
	got := state.Before
	want := []string{"00-multus.conf", "04.conflist", "05-a.json", "05-sluice.conf"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	if got := filepath.Base(files[len(want)]); got != ConflistName {
		t.Errorf("after those the library has %s, want %s", got, ConflistName)
	}
}

// What is in the way is replaced as a name, never written through; a directory that isn't there is
// an error.
func TestInstallConflistInTheWay(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(elsewhere, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, ConflistName)); err != nil {
		t.Fatal(err)
	}
	if state, err := Conflist(dir, ConflistOptions{}); err != nil || !state.Changed {
		t.Errorf("got %+v, %v", state, err)
	}
	if content, err := os.ReadFile(elsewhere); err != nil || string(content) != "precious" {
		t.Errorf("the link's target is %q (%v)", content, err)
	}
	missing := filepath.Join(dir, "missing")
	if _, err := Conflist(missing, ConflistOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that the directory is missing", err)
	}
	inTheWay := t.TempDir()
	if err := os.MkdirAll(filepath.Join(inTheWay, ConflistName, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Conflist(inTheWay, ConflistOptions{}); err == nil {
		t.Error("a directory is in the way, and there is no error")
	}
	if entries, err := os.ReadDir(inTheWay); err != nil || len(entries) != 1 {
		t.Errorf("a failed write leaves %v (%v)", entries, err)
	}
}
