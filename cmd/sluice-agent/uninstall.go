package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/install"
	"github.com/sluice-net/sluice/nft/others"
	"github.com/sluice-net/sluice/nft/table"
	"github.com/sluice-net/sluice/overlay"
)

// runUninstall takes everything of Sluice off this node.
func runUninstall(ctx context.Context, args []string) error {
	u, wait, err := parseUninstall(args)
	if err != nil {
		return err
	}
	if err := u.run(ctx); err != nil {
		return err
	}
	fmt.Println("nothing of Sluice is left on this node")
	if wait {
		<-ctx.Done()
	}
	return nil
}

// uninstaller knows where the agent's things are. It works in the network namespace of the calling
// thread.
type uninstaller struct {
	stateDir, socket, cniConfDir, binDir, runDir, subnetFile string

	force bool
}

func parseUninstall(args []string) (u *uninstaller, wait bool, err error) {
	u = &uninstaller{}
	fs := flag.NewFlagSet("sluice-agent uninstall", flag.ContinueOnError)
	fs.StringVar(&u.stateDir, "state-dir", cni.DefaultStateDir, "the agent's --state-dir")
	fs.StringVar(&u.socket, "socket", "", "the agent's --socket (default STATE-DIR/cni.sock)")
	fs.StringVar(&u.cniConfDir, "cni-conf-dir", "/etc/cni/net.d",
		"the agent's --cni-conf-dir; empty: nothing is removed there")
	fs.StringVar(&u.binDir, "bin-dir", "/opt/cni/bin",
		"where the CNI plugin was installed; empty: nothing is removed there")
	fs.StringVar(&u.runDir, "run-dir", "/run",
		"the agent's --run-dir; empty: nothing is removed there")
	fs.StringVar(&u.subnetFile, "subnet-file", "/run/flannel/subnet.env",
		"the agent's --subnet-file; empty: it isn't removed")
	fs.String("sysctl-dir", "/proc/sys/net",
		"the agent's --sysctl-dir; sysctls stay as they are, as others may count on them by now")
	fs.BoolVar(&u.force, "force", false, "also where pods have their network from Sluice, which "+
		"they lose, or where other network configurations use the plugin")
	fs.BoolVar(&wait, "wait", false, "stay when it is done, until a signal to end")
	if err := fs.Parse(args); err != nil {
		return nil, false, err
	}
	if fs.NArg() > 0 {
		return nil, false, fmt.Errorf("argument %q: expected flags only", fs.Arg(0))
	}
	if u.socket == "" {
		u.socket = filepath.Join(u.stateDir, cni.SocketName)
	}
	return u, wait, nil
}

// run changes nothing while the node's network is in use. Then it removes first what lets pods in,
// and the table only once no pod's link is left: no pod is without its policy at any moment. The
// state goes last but one, so that another try knows what this one knew, and the plugin last, so
// that as many DELs as possible succeed.
func (u *uninstaller) run(ctx context.Context) error {
	if err := u.refuse(ctx); err != nil {
		return err
	}
	if u.cniConfDir != "" {
		kept, err := install.RemoveConflist(u.cniConfDir)
		if err != nil {
			return err
		}
		if kept != "" {
			fmt.Printf("plugins that others had appended to our CNI configuration are in %s, to "+
				"be put behind another network's\n", kept)
		}
	}
	if err := install.RemoveLinks(); err != nil {
		return err
	}
	err := errors.Join(overlay.Remove(overlay.Options{}), new(others.Accepter).Remove(ctx),
		others.RemoveTrial(), table.Remove(table.Options{}))
	if err = errors.Join(err, u.removeFiles()); err != nil {
		return err
	}
	if u.binDir != "" {
		return install.RemovePlugin(u.binDir)
	}
	return nil
}

// refuse says why nothing can be removed yet.
func (u *uninstaller) refuse(ctx context.Context) error {
	const patience = 5 * time.Second
	asking, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if cni.IsAnswered(asking, u.socket) {
		// The agent would put everything back.
		return fmt.Errorf("an agent runs on this node, and answers on %s: stop it first", u.socket)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("asking whether an agent runs: %w", err)
	}
	if u.force {
		return nil
	}
	pods, err := install.PodsLeft(u.stateDir)
	if err != nil {
		return err
	}
	if len(pods) > 0 {
		return fmt.Errorf("%d pods have their network from Sluice: %s; remove them first "+
			"(kubectl drain), or cut them off with --force",
			len(pods), firstFew(pods))
	}
	if u.cniConfDir == "" {
		return nil
	}
	users, err := install.PluginUsers(u.cniConfDir)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("in %s, %s use the plugin: take it out of them first, or let their "+
			"pods fail to start with --force",
			u.cniConfDir, firstFew(users))
	}
	return nil
}

// removeFiles removes all files that the agent wrote, except the plugin. Where no agent has had a
// pod network, the subnet file is flannel's.
func (u *uninstaller) removeFiles() error {
	var errs []error
	if u.runDir != "" {
		errs = append(errs, install.RemoveDropIns(u.runDir))
	}
	// an agent with --policy-only has none
	_, err := os.Lstat(filepath.Join(u.stateDir, savedNetConf))
	if u.subnetFile != "" && err == nil {
		errs = append(errs, overlay.RemoveSubnetFile(u.subnetFile))
	}
	if err = errors.Join(errs...); err != nil {
		return err
	}
	return install.RemoveState(u.stateDir, savedNetConf)
}

// firstFew names the first few, and the number of the others.
func firstFew(names []string) string {
	const most = 20
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
