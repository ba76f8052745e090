package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/kernels"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/test/needroot"
)

// oldKernel is of Debian 11.
var oldKernel = kernels.Identify("5.10.0-32-amd64", "#1 SMP Debian 5.10.223-1 (2024-08-10)")

// TestOldKernelIsLeftAsItIs: on a kernel below the minimum neither the agent nor the init container
// starts, each with one line, and nothing is changed: no table, no link, no route, no sysctl and no
// file. On such a kernel the test is about that one. It runs alone, as the agent sets the logger.
func TestOldKernelIsLeftAsItIs(t *testing.T) {
	needroot.Skip(t)
	old := oldKernel
	if k, err := runningKernel(); err != nil {
		t.Fatal(err)
	} else if k.TooOld() {
		old = k
	}
	dir, node := t.TempDir(), newNetNS(t)
	must(t, os.WriteFile(filepath.Join(dir, "kubeconfig"), []byte(nowhere), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "net-conf.json"), []byte(`{"Network":"10.244.0.0/16"}`),
		0o600))
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	before := seen(t, node, dir)
	starts := map[string]func(context.Context) error{
		"agent": func(ctx context.Context) error {
			return runAgentOn(ctx, old, []string{"--node-name=n1", "--http-address=0",
				"--kubeconfig=" + dir + "/kubeconfig", "--net-conf=" + dir + "/net-conf.json",
				"--state-dir=" + dir + "/state", "--cni-conf-dir=" + dir,
				"--subnet-file=" + dir + "/subnet.env", "--run-dir=" + dir})
		},
		"install": func(ctx context.Context) error {
			return installOn(ctx, old,
				[]string{"--bin-dir=" + dir + "/bin", "--plugin=" + dir + "/net-conf.json"})
		},
	}
	for name, start := range starts {
		const longEnough = 5 * time.Second // one that started would go on
		ctx, stop := context.WithTimeout(t.Context(), longEnough)
		defer stop()
		var err error
		within := node.Do(func(ns.NetNS) error { err = start(ctx); return nil })
		if within != nil || err == nil {
			t.Fatalf("%s: it started (%v)", name, within)
		}
		for _, want := range []string{"kernel " + old.Release, "Linux " + old.Version.String(),
			"expected Linux " + kernels.Minimum().String() + " or newer"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q lacks %q", name, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: several lines: %q", name, err)
		}
		if after := seen(t, node, dir); after != before {
			t.Errorf("%s has changed the node:\n%s\nbefore:\n%s", name, after, before)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const nowhere = `{apiVersion: v1, kind: Config, current-context: a,
	clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}],
	contexts: [{name: a, context: {cluster: a, user: a}}], users: [{name: a, user: {}}]}`

// seen is what a start could change: the ruleset, links, routes, sysctls, and the files in a
// folder.
func seen(t *testing.T, node ns.NetNS, dir string) (all string) {
	t.Helper()
	must(t, node.Do(func(ns.NetNS) error {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `set -e; nft list ruleset
			ip -d link; ip route show table all; ip -6 route show table all; ip neigh
			grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward \
				/proc/sys/net/ipv6/conf | sort
			cd "$1"; find . -printf '%p %s %T@ %m\n' | sort`, "sh", dir)
		out, err := cmd.CombinedOutput()
		all = string(out)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	return all
}

// TestWhatAKernelLacks: each thing that is missing has one line that names it, and what says
// nothing of the kernel keeps no agent from starting.
func TestWhatAKernelLacks(t *testing.T) {
	t.Parallel()
	fine := kernels.Identify("6.1.176", "")
	features := kernels.Features()
	for name, c := range map[string]struct {
		kernel kernels.Kernel
		lacks  []kernels.Feature
		err    error
		want   []string // nothing: it starts
	}{
		"all is there":                     {kernel: fine},
		"an unreadable version, all there": {kernel: kernels.Identify("testing", "#1")},
		"an unreadable version, without fib": {kernel: kernels.Identify("testing", "#1"),
			lacks: features[4:5], want: []string{"kernel testing:", "CONFIG_NFT_FIB_INET"}},
		"two are missing": {kernel: fine, lacks: features[:2], want: []string{"kernel 6.1.176:",
			"CONFIG_NF_TABLES_INET", "CONFIG_NF_CONNTRACK_LABELS"}},
		"no nftables": {kernel: fine,
			err:  fmt.Errorf("%w: %w", table.ErrNoNFTables, unix.EPROTONOSUPPORT),
			want: []string{"kernel 6.1.176:", "nf_tables", "CONFIG_NF_TABLES"}},
		"no right":  {kernel: fine, err: unix.EPERM, want: []string{"NET_ADMIN"}},
		"no memory": {kernel: fine, err: unix.ENOMEM},
		"an old one, and no right": {kernel: oldKernel, err: unix.EPERM,
			want: []string{"5.10.223", "expected Linux 5.13"}},
	} {
		err := checkKernel(t.Context(), c.kernel, false,
			func(context.Context, table.Options, []kernels.Feature) ([]kernels.Feature, error) {
				return c.lacks, c.err
			}, logr.Discard())
		if (err != nil) != (len(c.want) > 0) {
			t.Errorf("%s: error %v", name, err)
		}
		for _, want := range c.want {
			if err != nil && (!strings.Contains(err.Error(), want) ||
				strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s: %q: expected one line with %q", name, err, want)
			}
		}
	}
}

// TestWithoutTheRightToAsk: the agent names the capability that it lacks, and changes nothing.
func TestWithoutTheRightToAsk(t *testing.T) {
	t.Parallel()
	needroot.Skip(t)
	done := make(chan error)
	go func() {
		// Never unlocked: the thread, which loses its rights, ends with the goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		done <- checkKernel(context.Background(), kernels.Identify("6.1.176", ""), false,
			table.Missing, logr.Discard())
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "NET_ADMIN") {
		t.Errorf("without capabilities: %v", err)
	}
}
