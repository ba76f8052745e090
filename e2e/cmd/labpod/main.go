// Command labpod is what the lab runs in a pod's network namespace in the place of its containers.
// It serves the ports of its arguments, and first connects to a target if an argument says so. It
// reports on standard output and ends with a signal.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/sluice-net/sluice/e2e/internal/podprogram"
	"github.com/sluice-net/sluice/test/probe"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "labpod:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var name, first string
	var ports []podprogram.Port
	flags := flag.NewFlagSet("labpod", flag.ContinueOnError)
	flags.StringVar(&name, podprogram.NameFlag, "", "what to answer with")
	flags.StringVar(&first, podprogram.FirstConnectFlag, "",
		"where to connect first of all, such as tcp://10.244.1.2:80")
	flags.Func(podprogram.ServeFlag, "port to serve, such as tcp/80; may be repeated",
		func(text string) error {
			port, err := podprogram.ParsePort(text)
			ports = append(ports, port)
			return err
		})
	if err := flags.Parse(args); err != nil {
		return err
	}
	out := &reporter{}
	if first != "" {
		target, err := podprogram.ParseTarget(first)
		if err != nil {
			return err
		}
		go func() { out.write(podprogram.Report{FirstConnect: connectFirst(target)}) }()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(name, ports); err != nil {
		return err
	}
	out.write(podprogram.Report{Serving: true})
	<-ctx.Done()
	return nil
}

// serve opens the ports, which stay open until the process ends.
func serve(name string, ports []podprogram.Port) error {
	var sctp *probe.SCTPServer
	for _, port := range ports {
		var err error
		switch port.Protocol {
		case probe.TCP:
			_, err = probe.ServeTCP(name, port.Number)
		case probe.UDP:
			_, err = probe.ServeUDP(name, port.Number)
		case probe.SCTP:
			if sctp == nil {
				sctp, err = probe.ListenSCTP(name)
			}
			if err == nil {
				err = sctp.Open(port.Number)
			}
		default:
			err = fmt.Errorf("no such protocol: %s", strings.ToUpper(string(port.Protocol)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reporter writes whole lines to standard output.
type reporter struct{ mu sync.Mutex }

func (r *reporter) write(report podprogram.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "labpod: reporting:", err)
	}
}
