package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-net/sluice/internal/names"
)

// dropIn is a file below /run that makes a daemon of the machine leave pods' links and the tunnel
// alone. Otherwise the daemon may set them down, give them addresses, or remove routes when it
// starts.
type dropIn struct {
	daemon  string // its directory; without that the daemon isn't there
	path    string
	content string
}

// Our links in the syntax of both.
const (
	ofNetworkd = names.PodLink + "* " + names.ShapingLink + "* " + names.TrialLink + "* " +
		names.Tunnel + "*"
	ofNetworkManager = "interface-name:" + names.PodLink + "*;interface-name:" + names.ShapingLink +
		"*;interface-name:" + names.TrialLink + "*;interface-name:" + names.Tunnel + "*"
)

// dropIns are the files for each daemon.
//
// Systemd-networkd's ManageForeignRoutes=no would spare the routes too. It exists only in the main
// configuration for the whole machine, so the administrator has to set it. Routes of unmanaged
// links are safe without it.
//
// NetworkManager's file has the list twice: a plain unmanaged-devices= in /etc, which is read
// later, replaces the list, but no section of another name.
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
// to write, which the daemons read at their next start or reload. Files that a reboot removes are
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

// RemoveDropIns removes the files that DropIns wrote, and unfinished ones. Files that aren't there
// are no error.
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
