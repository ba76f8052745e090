// Command cluster makes and removes a kind cluster that has Sluice for its pod network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sluice-net/sluice/e2e/kind"
)

const usage = `usage: cluster up|down|node-image [flags]

  up          make a cluster of a control plane and workers, and install Sluice on it
  down        remove it
  node-image  print the name of the nodes' image, which is pulled or built first

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o kind.Options
	var images string
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.Usage = func() {
		_, _ = fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.Name, "name", "sluice-e2e", "name of the cluster")
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "",
		"file to write the kubeconfig to (default bin/kind/NAME.kubeconfig)")
	flags.StringVar((*string)(&o.Family), "family", string(kind.IPv4),
		"addresses of nodes, pods and Services: ipv4, ipv6 or dual")
	flags.StringVar((*string)(&o.Proxy), "proxy", string(kind.NFTables),
		"mode of kube-proxy: nftables or iptables")
	flags.IntVar(&o.Workers, "workers", 2, "number of nodes beside the control plane")
	flags.StringVar(&o.Manifest, "manifest", "",
		"file to install Sluice by; empty: no pod network at all")
	flags.StringVar(&images, "images", "",
		"files of images to load into every node, with commas between them")
	if len(args) == 0 {
		flags.Usage()
		return errors.New("expected up, down or node-image")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if o.Kubeconfig == "" {
		o.Kubeconfig = filepath.Join("bin", "kind", o.Name+".kubeconfig")
	}
	if images != "" {
		o.Images = strings.Split(images, ",")
	}
	switch args[0] {
	case "up":
		if err := kind.Up(ctx, os.Stderr, o); err != nil {
			return err
		}
		path, err := filepath.Abs(o.Kubeconfig)
		fmt.Printf("export KUBECONFIG=%s\n", path)
		return err
	case "down":
		return kind.Down(ctx, o.Name, o.Kubeconfig)
	case "node-image":
		image, err := kind.NodeImage(ctx, os.Stderr)
		if err == nil {
			fmt.Println(image.Name)
		}
		return err
	}
	flags.Usage()
	return fmt.Errorf("%q: expected up, down or node-image", args[0])
}
