// Command lab starts a small Kubernetes cluster on this machine, of network namespaces, to try
// NetworkPolicies in. "lab help" lists its commands, and docs/lab.md says how to use it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  lab build
        build what labs run, or find it; up does this too
  lab up [--name NAME] [--nodes N] [--backend vxlan|host-gw|directrouting]
         [--ip-family dual|ipv4|ipv6] [--underlay dual|ipv4|ipv6] [--subnets 1|2]
         [--rp-filter off|loose|strict] [--mtu BYTES] [--drop-pod-sources] [--no-agent] [--detach]
        start a lab, and remove it with Ctrl-C; with --detach it stays in the background
  lab down [--name NAME | --all]
        remove a lab, also one whose processes were killed
  lab list
        print all labs, and what each is like
  lab probe [--name NAME]
        try all connections between pods, nodes and a host outside, and print a table
  lab exec [--name NAME] PLACE -- COMMAND [ARGUMENT...]
        run a program of this machine in the network of a pod (namespace/name), a node (node1)
        or the host "outside"
  lab why [--name NAME] NODE SOURCE DESTINATION PORT
        ask a node's agent whether it allows a connection, and why

All need root. The name is "lab" unless given.
`

func main() {
	// A second signal isn't caught: it ends an end that takes too long.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM,
		syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:])
	if exit, ok := errors.AsType[commandError](err); ok {
		os.Exit(int(exit)) // what was run has spoken
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{
		"build": build, "up": up, "down": down, "list": list, "probe": probe, "exec": execute,
		"why": why,
		"help": func(context.Context, []string) error {
			fmt.Print(usage)
			return nil
		},
	}
	if len(args) == 0 || commands[args[0]] == nil {
		_, _ = fmt.Fprint(os.Stderr, usage)
		return errors.New("expected one of the commands above")
	}
	return commands[args[0]](ctx, args[1:])
}
