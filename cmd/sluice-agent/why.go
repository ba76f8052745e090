package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/controllers/answers"
	"github.com/sluice-net/sluice/internal/printable"
)

// whyTimeout is longer than a working agent needs to answer.
const whyTimeout = 10 * time.Second

// runWhy asks the node's agent whether a connection is allowed, and prints the answer.
func runWhy(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("sluice-agent why", flag.ContinueOnError)
	socket := fs.String("socket", cni.DefaultSocket, "socket of the agent")
	live := fs.Bool("live", false, "list the connections that this node tracks between the two, "+
		"and what policies say of each now")
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(),
			"usage: sluice-agent why [--socket FILE] SOURCE DESTINATION PORT\n"+
				"       sluice-agent why [--socket FILE] --live SOURCE DESTINATION [PORT]\n\n"+
				"SOURCE and DESTINATION are addresses, or pods as namespace/name.\nPORT is 80, "+
				"53/udp, 80/sctp or icmp: the destination pod's own port, behind any Service.\n\n")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 3 && (!*live || fs.NArg() != 2) {
		fs.Usage()
		return errors.New("why: expected a source, a destination and a port")
	}
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	query := url.Values{"src": {fs.Arg(0)}, "dst": {fs.Arg(1)}, "port": {fs.Arg(2)}}
	path := cni.PathWhy
	if *live {
		path = cni.PathWhyLive
	}
	var answer answers.WhyAnswer
	if err := cni.NewClient(*socket).Get(ctx, path+"?"+query.Encode(), &answer); err != nil {
		return err
	}
	fmt.Fprintln(printable.Writer(os.Stdout), answer.Text)
	return nil
}
