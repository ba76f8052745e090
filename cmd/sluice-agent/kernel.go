package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/nft/table"
)

// runningKernel reads what the kernel says of itself.
func runningKernel() (kernels.Kernel, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return kernels.Kernel{}, fmt.Errorf("asking for the kernel's name: %w", err)
	}
	return kernels.Identify(unix.ByteSliceToString(name.Release[:]),
		unix.ByteSliceToString(name.Version[:])), nil
}

// checkVersion refuses a kernel that is older than what Sluice needs.
func checkVersion(k kernels.Kernel) error {
	if !k.TooOld() {
		return nil
	}
	return fmt.Errorf("kernel %s: expected Linux %s or newer: on systems with an older one nft "+
		"can fail at tables of newer programs (before nft 1.0.1), and kube-proxy's nftables mode "+
		"doesn't start; nothing was changed on this node", k, kernels.Minimum())
}

// lookForMissing is table.Missing.
type lookForMissing func(context.Context, table.Options,
	[]kernels.Feature) ([]kernels.Feature, error)

// checkKernel refuses a kernel that Sluice can't work on, before anything is written anywhere. Its
// error is one line, and says what is missing.
func checkKernel(ctx context.Context, k kernels.Kernel, policyOnly bool, missing lookForMissing,
	log logr.Logger) error {
	if err := checkVersion(k); err != nil {
		return err
	}
	lacks, err := missing(ctx, table.Options{}, kernels.Needed(policyOnly))
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("expected the capability NET_ADMIN, as root or in the manifest's "+
			"securityContext: asking the kernel for nf_tables: %w", err)
	case errors.Is(err, table.ErrNoNFTables):
		return fmt.Errorf("kernel %s: expected nf_tables for the family inet "+
			"(CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, or their modules): %w", k, err)
	case err != nil: // it says nothing of the kernel; the first write will say what is wrong
		log.Info("The kernel couldn't be asked for what Sluice needs", "reason", err.Error())
		return nil
	case len(lacks) == 0:
		return nil
	}
	names := make([]string, len(lacks))
	for i, f := range lacks {
		names[i] = fmt.Sprintf("%s (%s)", f.Name, f.Config)
	}
	return fmt.Errorf("kernel %s: expected nf_tables with %s; the modules may be missing",
		k, strings.Join(names, ", and "))
}
