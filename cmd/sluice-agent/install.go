package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni/install"
	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/nft/table"
)

// runInstall puts the CNI plugin where a container runtime looks for it.
func runInstall(ctx context.Context, args []string) error {
	k, err := runningKernel()
	if err != nil {
		return err
	}
	return installOn(ctx, k, args)
}

// installOn is runInstall on a kernel. On one that the agent can't work on, nothing is installed:
// without the capability NET_ADMIN, which the init container doesn't have, the version alone says
// so.
func installOn(ctx context.Context, k kernels.Kernel, args []string) error {
	fs := flag.NewFlagSet("sluice-agent install", flag.ContinueOnError)
	binDir := fs.String("bin-dir", "/opt/cni/bin",
		"where the container runtime looks for CNI plugins")
	plugin := fs.String("plugin", "", "the plugin's program (default: sluice beside this program)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || *binDir == "" {
		return errors.New("install: expected --bin-dir, and flags only")
	}
	const anyMode = true // what --policy-only needs is needed by all
	err := checkKernel(ctx, k, anyMode, table.Missing, logr.Discard())
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if *plugin == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("looking for the plugin: %w", err)
		}
		*plugin = filepath.Join(filepath.Dir(self), install.PluginName)
	}
	changed, err := install.Plugin(*plugin, *binDir)
	if errors.Is(err, install.ErrPluginStays) {
		// The agent starts after this: it must not stay away because of an older plugin.
		fmt.Fprintln(os.Stderr, "sluice-agent:", err)
		return nil
	}
	if err != nil {
		return err
	}
	what := "is up to date"
	if changed {
		what = "is installed"
	}
	fmt.Printf("the CNI plugin in %s %s\n", *binDir, what)
	return nil
}
