package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sluice-net/sluice/cni/install"
)

func checkConfigurations(o Options) Result {
	before, after, err := install.Configurations(o.ConfDir)
	if errors.Is(err, fs.ErrNotExist) {
		return passed("%s isn't there yet", o.ConfDir)
	}
	multus := len(before) > 0 && isMultus(filepath.Join(o.ConfDir, before[0]))
	return judgeConfigurations(o, files{before, after, multus}, err)
}

// files are others' network configurations, by the order in which a runtime looks for the first.
type files struct {
	before, after []string // before and after ours
	multus        bool     // the first is Multus'
}

// judgeConfigurations says which network the container runtime would take.
func judgeConfigurations(o Options, f files, err error) Result {
	switch before, after := f.before, f.after; {
	case err != nil:
		return failed("let root read it", "%v", err)
	case o.PolicyOnly && len(before)+len(after) == 0:
		return warned("install the other network first", "no network is configured in %s, and "+
			"--policy-only makes none", o.ConfDir)
	case o.PolicyOnly:
		return passed("the container runtime takes %s", append(before, after...)[0])
	case f.multus:
		return warned(fmt.Sprintf("see that it delegates to %s, by its clusterNetwork or its "+
			"delegates", install.ConflistName), "in %s, these come before Sluice's %s: %s. The "+
			"first is of Multus: pods get the network to which it delegates", o.ConfDir,
			install.ConflistName, firstFew(before))
	case len(before) > 0:
		return failed("move it out of the folder: runtimes take the first by name", "in %s, %s "+
			"comes before Sluice's %s: pods would get that network", o.ConfDir,
			firstFew(before), install.ConflistName)
	case len(after) > 0:
		return warned("remove it, or pods get that network when Sluice's is taken away, and until "+
			"it is there", "in %s there is another network: %s", o.ConfDir, firstFew(after))
	}
	return passed("no other network in %s", o.ConfDir)
}

// folder is a folder of the node, as it was found.
type folder struct {
	path string
	info fs.FileInfo // nil: it isn't there
	uid  uint32
	gid  uint32
	err  error
}

func checkFolders(o Options) Result {
	var all []folder
	for _, path := range []string{o.BinDir, o.ConfDir, o.StateDir} {
		all = append(all, lookAtFolder(path))
	}
	return judgeFolders(all)
}

func lookAtFolder(path string) folder {
	f := folder{path: path}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		f.err = err
	default:
		f.info = info
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			f.uid, f.gid = stat.Uid, stat.Gid
		}
	}
	return f
}

// judgeFolders wants folders of root, in which nobody else can put a file: what is there runs as
// root, or says what does. One that isn't there will be made so.
func judgeFolders(all []folder) Result {
	const others, group = 0o002, 0o020
	var bad, good, remedies []string
	for _, f := range all {
		mode := fs.FileMode(0)
		if f.info != nil {
			mode = f.info.Mode()
		}
		switch {
		case f.err != nil:
			bad, remedies = append(bad, f.err.Error()), append(remedies, "let root reach it")
		case f.info == nil:
			good = append(good, f.path+" (not there yet)")
		case !mode.IsDir():
			bad = append(bad, f.path+" is no folder")
			remedies = append(remedies, "move it away")
		case f.uid != 0:
			bad = append(bad, fmt.Sprintf("%s belongs to uid %d, who can put there what root runs",
				f.path, f.uid))
			remedies = append(remedies, "chown root:root "+f.path)
		case mode&others != 0, mode&group != 0 && f.gid != 0:
			bad = append(bad, fmt.Sprintf("%s can be written by others than root (%v, gid %d)",
				f.path, mode, f.gid))
			remedies = append(remedies, "chmod go-w "+f.path)
		default:
			good = append(good, f.path)
		}
	}
	if len(bad) > 0 {
		return failed(strings.Join(remedies, "; "), "%s", strings.Join(bad, "; "))
	}
	return passed("root's alone: %s", strings.Join(good, ", "))
}
