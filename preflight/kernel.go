package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/nft/table"
)

func checkKernel(Options) Result {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return warned("look at uname -r", "the kernel doesn't say its release: %v", err)
	}
	return judgeKernel(kernels.Identify(unix.ByteSliceToString(name.Release[:]),
		unix.ByteSliceToString(name.Version[:])), kernels.Bugs())
}

// judgeKernel holds a kernel against the oldest on which an agent starts, and names the bugs that
// the agent's Event KernelBug names, of all that are known.
func judgeKernel(k kernels.Kernel, known []kernels.Bug) Result {
	switch {
	case k.TooOld():
		return failed("upgrade the node's kernel", "%s: expected Linux %s or newer", k,
			kernels.Minimum())
	case !k.Known():
		return warned(fmt.Sprintf("see that it is Linux %s or newer", kernels.Minimum()),
			"%s: it doesn't say which Linux it is", k)
	}
	bugs, _ := k.Concerns(known, runtime.GOARCH)
	var notes []string
	for _, b := range bugs {
		notes = append(notes, fmt.Sprintf("%s the bug %s (%s)", k.Of(b, runtime.GOARCH), b.Name,
			b.Effect))
	}
	if len(notes) > 0 {
		return warned("boot a newer one of its line, if that has the mend: docs/kernels.md",
			"%s: %s", k, strings.Join(notes, ", and "))
	}
	return passed("%s", k)
}

// checkNFTables asks what an agent asks when it starts.
func checkNFTables(o Options) Result {
	const patience = time.Minute // it may load a dozen modules, from a slow disk
	features := kernels.Needed(o.PolicyOnly)
	lacks, err := table.Missing(context.Background(), table.Options{FlushTimeout: patience},
		features)
	return judgeNFTables(len(features), lacks, err)
}

// judgeNFTables says what is missing of what was asked for.
func judgeNFTables(asked int, lacks []kernels.Feature, err error) Result {
	const remedy = "boot a kernel with it, or install its package of modules"
	switch {
	case errors.Is(err, os.ErrPermission):
		return failed("run this as root", "nftables can't be asked: %v", err)
	case errors.Is(err, table.ErrNoNFTables):
		return failed(remedy, "there is no nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): %v",
			err)
	case errors.Is(err, nft.ErrUnknownOutcome):
		return warned("run this once more, and look at the kernel's log (dmesg)",
			"nftables doesn't answer: %v", err)
	case err != nil:
		return warned("look at the kernel's log (dmesg)", "nftables can't be asked: %v", err)
	case len(lacks) > 0:
		var names []string
		for _, f := range lacks {
			names = append(names, fmt.Sprintf("%s (%s)", f.Name, f.Config))
		}
		return failed(remedy, "nf_tables lacks %s", strings.Join(names, ", and "))
	}
	return passed("nf_tables has all that is needed (%d features)", asked)
}
