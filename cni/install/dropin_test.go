package install

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDropIns(t *testing.T) {
	t.Parallel()
	network, manager := "systemd/network/05-sluice.network", "NetworkManager/conf.d/05-sluice.conf"
	for name, test := range map[string]struct{ daemons, want []string }{
		"neither":        {nil, nil},
		"NetworkManager": {[]string{"NetworkManager"}, []string{manager}},
		"systemd":        {[]string{"systemd"}, []string{network}},
		"both": {[]string{"NetworkManager", "systemd/network"},
			[]string{manager, network}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := t.TempDir()
			for _, d := range test.daemons {
				if err := os.MkdirAll(filepath.Join(run, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			var want []string
			for _, path := range test.want {
				want = append(want, filepath.Join(run, path))
			}
			if got, err := DropIns(run); err != nil || !slices.Equal(got, want) {
				t.Errorf("wrote %v (%v), want %v", got, err, want)
			}
			if got, err := DropIns(run); err != nil || len(got) > 0 {
				t.Errorf("wrote %v once more (%v)", got, err)
			}
			for _, path := range want {
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for _, devices := range []string{"slup*", "slub*", "slprobe*", "sluice.*"} {
					if !strings.Contains(string(content), devices) {
						t.Errorf("%s lacks %s: %s", path, devices, content)
					}
				}
			}
			if err := errors.Join(RemoveDropIns(run), RemoveDropIns(run)); err != nil {
				t.Error(err)
			}
			for _, path := range want {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s is left", path)
				}
			}
		})
	}
}

// What can't be written doesn't keep the other from being written.
func TestDropInThatFails(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	if err := os.MkdirAll(filepath.Join(run, "systemd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(run, "NetworkManager", "conf.d", "05-sluice.conf", "full"),
		0o700); err != nil {
		t.Fatal(err)
	}
	written, err := DropIns(run)
	if err == nil || len(written) != 1 || !strings.HasSuffix(written[0], ".network") {
		t.Errorf("got %v, %v", written, err)
	}
}
