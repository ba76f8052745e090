package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
)

// readyFD is the descriptor on which a lab in the background reports its start; the variable says
// that it should.
const (
	readyFD       = 3
	readyVariable = "SLUICE_LAB_READY_FD"
	readyWord     = "ready"
)

// up starts a lab and stays until ctx ends, or with --detach has another process do so.
func up(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	options := lab.Options{Progress: os.Stderr}
	flags.StringVar(&options.Name, "name", lab.DefaultName, "name of the lab")
	flags.IntVar(&options.Nodes, "nodes", 3, "number of nodes")
	families := flags.String("ip-family", string(lab.DualStack),
		"address families of pods: dual, ipv4 or ipv6")
	backend := flags.String("backend", string(lab.VXLAN),
		"how pods' packets get from node to node: vxlan, host-gw or directrouting")
	underlay := flags.String("underlay", "",
		"address families of nodes: dual, ipv4 or ipv6 (default: those of pods)")
	flags.IntVar(&options.Subnets, "subnets", 1,
		"subnets that the nodes are on in turn, with a router between: 1 or 2")
	rpFilter := flags.String("rp-filter", string(lab.RPFilterOff),
		"reverse path filter of the nodes: off, loose or strict")
	flags.IntVar(&options.MTU, "mtu", 0, "MTU of the nodes' links (default 1500)")
	flags.BoolVar(&options.DropPodSources, "drop-pod-sources", false,
		"the network between the nodes drops what comes from a pod's address")
	flags.BoolVar(&options.NoAgent, "no-agent", false,
		"no sluice-agent: pods on the CNI project's ptp plugin, nothing enforced")
	detach := flags.Bool("detach", false, "leave the lab in the background")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q: lab up has flags only", flags.Arg(0))
	}
	options.Families, options.Underlay = lab.Families(*families), lab.Families(*underlay)
	options.Backend, options.RPFilter = lab.Backend(*backend), lab.RPFilter(*rpFilter)
	if err := options.Check(); err != nil {
		return err
	}
	if *detach {
		return startDetached(ctx, options.Name, args)
	}
	if os.Getenv(readyVariable) != "" {
		syscall.CloseOnExec(readyFD) // or who waits would wait for the lab's processes too
	}
	start := time.Now()
	l, err := lab.Up(ctx, options)
	if err != nil {
		sayReady(err.Error())
		return err
	}
	fmt.Print(introduction(ctx, l.View, time.Since(start)))
	sayReady(readyWord)
	<-ctx.Done()
	fmt.Println("removing the lab")
	return l.Down()
}

// startDetached runs the same command in the background and returns when its lab is ready.
func startDetached(ctx context.Context, name string, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(lab.LogFile(name)), 0o755); err != nil {
		return err
	}
	log, err := os.Create(lab.LogFile(name))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	outcome, report, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = outcome.Close() }()
	background := []string{"up"}
	for _, arg := range args {
		if !strings.HasPrefix(strings.TrimLeft(arg, "-"), "detach") {
			background = append(background, arg)
		}
	}
	cmd := exec.Command(self, background...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", readyVariable, readyFD))
	cmd.ExtraFiles = []*os.File{report}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), report.Close()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	word, err := io.ReadAll(outcome)
	if err != nil {
		return err
	}
	if string(word) != readyWord {
		return errors.Join(fmt.Errorf("%s, see %s", word, lab.LogFile(name)), cmd.Wait())
	}
	l, err := lab.OpenLab(name)
	if err != nil {
		return err
	}
	fmt.Print(introduction(ctx, l, 0))
	return cmd.Process.Release()
}

// sayReady reports to the process that waits for this one, if any.
func sayReady(word string) {
	if os.Getenv(readyVariable) == "" {
		return
	}
	pipe := os.NewFile(readyFD, "ready")
	_, _ = io.WriteString(pipe, word) // no one listens any more, if it fails
	_ = pipe.Close()
	_ = os.Unsetenv(readyVariable)
}

// introduction says how to play.
func introduction(ctx context.Context, l *lab.View, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "lab %s is ready", l.Name())
	if took > 0 {
		fmt.Fprintf(&b, " after %.1f s", took.Seconds())
	}
	self, err := os.Executable()
	if err != nil {
		self = "lab"
	}
	kubectl := l.Kubectl()
	if kubectl == "" {
		kubectl = "kubectl"
	}
	flag := ""
	if l.Name() != lab.DefaultName {
		flag = " --name " + l.Name()
	}
	fmt.Fprintf(&b, ", with %s and a host %q beside them\n", strings.Join(l.NodeNames(), ", "),
		lab.Outside)
	if description, err := lab.Describe(ctx, l.Name()); err == nil {
		fmt.Fprintln(&b, description)
	}
	fmt.Fprintf(&b, `
  export KUBECONFIG=%s
  alias kubectl=%s lab=%s
  kubectl apply -f YOUR-MANIFESTS      pods (every containerPort is served) and NetworkPolicies
  lab probe%s                          who reaches whom
  lab exec%s NAMESPACE/POD -- COMMAND  be in a pod's network; also: node1, outside
  lab down%s                           remove it

logs and state are in %s
`, l.Kubeconfig(), kubectl, self, flag, flag, flag, l.Dir())
	return b.String()
}
