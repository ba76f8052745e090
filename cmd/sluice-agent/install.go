package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-net/sluice/cni/install"
)

// runInstall puts the CNI plugin where a container runtime looks for it.
func runInstall(_ context.Context, args []string) error {
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
