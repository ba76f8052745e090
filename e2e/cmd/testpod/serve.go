package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
	"github.com/sluice-net/sluice/test/probe"
)

// serve answers on ports until ctx ends, and for the time of --linger after that, as a server does
// that drains.
func serve(ctx context.Context, args []string, out *printer) error {
	var ports []testprogram.Port
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	name := flags.String("name", "",
		"what to answer with (default: the host's name, which is the pod's)")
	reportPeers := flags.Bool("report-peers", false, "print who connects by TCP and sends by UDP")
	linger := flags.Duration("linger", 5*time.Second, "how long to serve on after SIGTERM")
	flags.Func("serve", "port to serve, such as tcp/80; may be repeated", func(text string) error {
		port, err := testprogram.ParsePort(text)
		ports = append(ports, port)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *name == "" {
		var err error
		if *name, err = os.Hostname(); err != nil {
			return fmt.Errorf("finding the host's name: %w", err)
		}
	}
	s := &server{name: *name}
	if *reportPeers {
		s.onPeer = func(protocol string, port uint16, from netip.AddrPort) {
			out.report(testprogram.Report{Peer: &testprogram.Peer{At: time.Now(),
				Protocol: protocol, Port: port, From: from}})
		}
	}
	defer s.close()
	for _, port := range ports {
		if err := s.open(port); err != nil {
			return fmt.Errorf("serving %s: %w", port, err)
		}
	}
	if err := out.print(testprogram.Report{Serving: true}); err != nil {
		return err
	}
	<-ctx.Done()
	<-time.After(*linger)
	return nil
}

// server answers queries as those of package probe do, with the server's name and the client's
// address as the server sees it. Unlike those it says who comes, and takes large datagrams.
type server struct {
	name   string
	onPeer func(protocol string, port uint16, from netip.AddrPort) // nil: no report
	sctp   *probe.SCTPServer                                       // nil until a port is open
	stops  []func()
}

func (s *server) open(port testprogram.Port) error {
	switch port.Protocol {
	case testprogram.TCP:
		return s.openTCP(port.Number)
	case testprogram.UDP:
		return s.openUDP(port.Number)
	}
	return s.openSCTP(port.Number)
}

// openSCTP opens the port if SCTP can be spoken here. If not the others are served all the same:
// clients find out as well.
func (s *server) openSCTP(port uint16) error {
	if err := supported(testprogram.SCTP, netip.IPv4Unspecified()); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "testpod: not serving sctp/%d: %v\n", port, err)
		return nil
	}
	if s.sctp == nil {
		var err error
		if s.sctp, err = probe.ListenSCTP(s.name); err != nil {
			return err
		}
		s.stops = append(s.stops, s.sctp.Close)
	}
	return s.sctp.Open(port)
}

// close ends what was opened.
func (s *server) close() {
	for _, stop := range s.stops {
		stop()
	}
}

// came reports a client, if anybody wants to know, and returns what it is greeted with.
func (s *server) came(protocol string, port uint16, from netip.AddrPort) string {
	from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
	if s.onPeer != nil {
		s.onPeer(protocol, port, from)
	}
	return s.name + " " + from.String()
}
