package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-net/sluice/internal/names"
)

// dropIn tells a daemon of the machine, in a file below /run, that pods' links and the tunnel
// aren't its business. Otherwise it may set them down, give them addresses, or remove routes when
// it starts.
type dropIn struct {
	daemon  string // its directory; without that the daemon isn't there
	path    string
	content string
}

// Our links in the words of both.
const (
	ofNetworkd = names.PodLink + "* " + names.ShapingLink + "* " + names.ProbeLink + "* " +
		names.Tunnel + "*"
	ofNetworkManager = "interface-name:" + names.PodLink + "*;interface-name:" + names.ShapingLink +
		"*;interface-name:" + names.ProbeLink + "*;interface-name:" + names.Tunnel + "*"
)

// dropIns are the files for each daemon.
//
// Systemd-networkd's ManageForeignRoutes=no, which would spare the routes too, exists only in its
// main configuration for the whole machine, so it is the administrator's to set. Unmanaged links'
// routes it leaves alone by itself.
//
// NetworkManager has it twice: a plain unmanaged-devices= in /etc, which comes later, replaces the
// list, but no section of another name.
var dropIns = []dropIn{
	{
		daemon: "NetworkManager",
		path:   "NetworkManager/conf.d/05-sluice.conf",
		content: `# Written by sluice-agent: the links of the pod network are looked after by it.
[keyfile]
unmanaged-devices+=` + ofNetworkManager + `

[device-sluice]
match-device=` + ofNetworkManager + `
managed=0
`,
	},
	{
		daemon: "systemd",
		path:   "systemd/network/05-sluice.network",
		content: `# Written by sluice-agent: the links of the pod network are looked after by it.
[Match]
Name=` + ofNetworkd + `

[Link]
Unmanaged=yes
`,
	},
}

// DropIns writes, below runDir (usually /run), what makes NetworkManager and systemd-networkd leave
// our devices alone, for each of them that has a directory there. It returns the files that it had
// to write; their daemons heed them from their next start or reload on. What a reboot removes is
// written again when the agent starts.
func DropIns(runDir string) (written []string, err error) {
	var errs []error
	for _, d := range dropIns {
		if info, err := os.Stat(filepath.Join(runDir, d.daemon)); err != nil || !info.IsDir() {
			continue
		}
		path := filepath.Join(runDir, d.path)
		changed, err := d.install(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("writing %s: %w", path, err))
		}
		if changed {
			written = append(written, path)
		}
	}
	return written, errors.Join(errs...)
}

func (d dropIn) install(path string) (changed bool, err error) {
	const readable = 0o755 // the daemons aren't all root
	if err := os.MkdirAll(filepath.Dir(path), readable); err != nil {
		return false, err
	}
	return replaceFile(path, []byte(d.content))
}

// RemoveDropIns removes what DropIns wrote, or was about to write. Files that aren't there are no
// error.
func RemoveDropIns(runDir string) error {
	var errs []error
	for _, d := range dropIns {
		path := filepath.Join(runDir, d.path)
		if err := errors.Join(removeFile(path), removeUnfinished(filepath.Dir(path))); err != nil {
			errs = append(errs, fmt.Errorf("removing %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}
