// Command demo starts a lab of two nodes, shows that their pods talk through VXLAN, applies the
// default-deny policies of config/samples step by step with the Kubernetes API, and shows with real
// connections what each of them changed. It fails if any connection differs from what the policies
// mean. With the argument "cluster" a second part shows ClusterNetworkPolicies over them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// parse reads the arguments: the folder of the sample manifests, and before it "cluster" if the
// second part is wanted too.
func parse(args []string) (cluster bool, samples string, err error) {
	if len(args) > 0 && args[0] == "cluster" {
		cluster, args = true, args[1:]
	}
	if len(args) != 1 {
		return false, "", fmt.Errorf("arguments %q: expected the folder of the sample manifests, "+
			"and before it nothing or \"cluster\" (DEMO=cluster)", args)
	}
	return cluster, args[0], nil
}

func run(ctx context.Context) (err error) {
	cluster, samples, err := parse(os.Args[1:])
	if err != nil {
		return err
	}
	fmt.Println("Starting a lab: a real API server and two nodes, each a network namespace of " +
		"this machine,")
	fmt.Println("with pods of both address families and VXLAN between the nodes.")
	start := time.Now()
	l, err := lab.Up(ctx,
		lab.Options{Name: fmt.Sprintf("demo-%d", os.Getpid()), Nodes: 2, Progress: os.Stdout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	fmt.Printf("The lab is up after %.1f s. No packet leaves the machine.\n",
		time.Since(start).Seconds())

	d := &demo{lab: l, samples: samples}
	if err := d.startPods(ctx); err != nil {
		return err
	}
	if err := d.showTunnel(ctx); err != nil {
		return err
	}
	steps := d.steps()
	if cluster {
		steps = append(steps, d.clusterSteps()...)
	}
	for number, s := range steps {
		if err := d.walk(ctx, number+1, s); err != nil {
			return err
		}
	}
	fmt.Println("\nEvery connection was as the policies say.")
	return nil
}
