package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers"
	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/preflight"
)

// The exit codes of check.
const (
	exitUnfit    = 1
	exitBadUsage = 2
)

// usualNetConf is what the manifests say where nobody changes them.
const usualNetConf = `{"Network": "10.244.0.0/16"}`

// runCheck finds out whether an agent could work on this node, and prints what it found. It changes
// nothing.
func runCheck(ctx context.Context, args []string) error {
	c, err := parseCheck(args)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return exitError{exitBadUsage, err}
	}
	ok, err := c.run(ctx, os.Stdout)
	if err != nil {
		return exitError{exitBadUsage, err}
	}
	if !ok {
		return exitError{exitUnfit, errors.New("this node isn't ready for Sluice")}
	}
	if c.wait {
		<-ctx.Done()
	}
	return nil
}

// checker is what check was asked for.
type checker struct {
	options     preflight.Options
	netConf     string // empty: the usual one
	kubeconfig  string
	asJSON      bool
	wait        bool
	askPatience time.Duration
}

func parseCheck(args []string) (*checker, error) {
	const usualFile = "/etc/sluice/net-conf.json"
	c := &checker{askPatience: 10 * time.Second}
	fs := flag.NewFlagSet("sluice-agent check", flag.ContinueOnError)
	fs.BoolVar(&c.options.PolicyOnly, "policy-only", false, "as the agent's: another plugin wires "+
		"the pods")
	fs.StringVar(&c.netConf, "net-conf", "", "the pod network's configuration (default "+usualFile+
		" if it is there, else "+usualNetConf+")")
	fs.StringVar(&c.kubeconfig, "kubeconfig", "",
		"ask an API server for the Nodes as well; empty: none is asked")
	fs.StringVar(&c.options.Node, "node-name", os.Getenv("NODE_NAME"),
		"name of this node's object, for --kubeconfig (default $NODE_NAME)")
	fs.StringVar(&c.options.BinDir, "bin-dir", "/opt/cni/bin",
		"where the container runtime looks for CNI plugins")
	fs.StringVar(&c.options.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "the agent's --cni-conf-dir")
	fs.StringVar(&c.options.StateDir, "state-dir", cni.DefaultStateDir, "the agent's --state-dir")
	fs.StringVar(&c.options.SysctlDir, "sysctl-dir", "/proc/sys/net", "the agent's --sysctl-dir")
	fs.BoolVar(&c.asJSON, "json", false, "print JSON")
	fs.BoolVar(&c.wait, "wait", false, "stay when nothing failed, until a signal to end")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "usage: sluice-agent check [flags]\n\n"+
			"Says whether Sluice can work on this node, and what to do where it can't. Changes "+
			"nothing.\nExits with 0 if nothing failed, 1 if something did, 2 if it was asked in "+
			"a wrong way.\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("argument %q: expected flags only", fs.Arg(0))
	}
	if c.kubeconfig != "" && c.options.Node == "" {
		return nil, errors.New("--node-name: expected the name of this node's object, as " +
			"--kubeconfig is given")
	}
	return c, c.readNetConf(usualFile)
}

// readNetConf reads what --net-conf says, or the usual file, or takes what is usual.
func (c *checker) readNetConf(usualFile string) error {
	if c.options.PolicyOnly {
		return nil
	}
	path := c.netConf
	if path == "" {
		path = usualFile
	}
	data, err := os.ReadFile(path)
	if c.netConf == "" && errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(usualNetConf), nil
	}
	if err == nil {
		c.options.Config, err = overlay.ParseConfig(data)
	}
	if err != nil {
		return fmt.Errorf("--net-conf=%s: %w", path, err)
	}
	return nil
}

// run does the checks, prints what they say, and returns whether none failed. An error says that it
// was asked in a wrong way.
func (c *checker) run(ctx context.Context, to io.Writer) (ok bool, err error) {
	var results []preflight.Result
	if c.kubeconfig != "" {
		result, err := c.askForNodes(ctx)
		if err != nil {
			return false, err
		}
		results = append(results, result)
	}
	results = append(results, preflight.Run(c.options)...)
	if c.asJSON {
		err = json.NewEncoder(to).Encode(map[string]any{
			"status": preflight.Worst(results), "checks": results})
	} else {
		err = preflight.Write(to, results)
	}
	return preflight.Worst(results) != preflight.Fail, err
}

// askForNodes reads the cluster's Nodes into the options. An error is about the kubeconfig; whether
// the API server answers is a check.
func (c *checker) askForNodes(ctx context.Context) (preflight.Result, error) {
	cfg, err := restConfig(c.kubeconfig)
	if err != nil {
		return preflight.Result{}, err
	}
	cfg.Timeout = c.askPatience
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return preflight.Result{}, fmt.Errorf("reading --kubeconfig=%s: %w", c.kubeconfig, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.askPatience)
	defer cancel()
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return preflight.Unasked(cfg.Host, err), nil
	}
	for i := range list.Items {
		// an annotation that can't be read counts as none, and is reported by the agent
		node, _ := controllers.OverlayNode(&list.Items[i])
		c.options.Nodes = append(c.options.Nodes, node)
	}
	return preflight.Asked(cfg.Host, c.options.Node, c.options.Nodes), nil
}
