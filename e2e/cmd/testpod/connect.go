package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// connectAtOnce bounds how many targets are tried at the same time.
const connectAtOnce = 64

// connect tries each target once, all of them at once.
func connect(ctx context.Context, args []string, out *printer) error {
	flags := flag.NewFlagSet("connect", flag.ContinueOnError)
	timeout := flags.Duration("timeout", time.Second, "how long to wait for an answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	targets, err := targetsOf(flags.Args())
	if err != nil {
		return err
	}
	results := make([]testprogram.Result, len(targets))
	free := make(chan struct{}, connectAtOnce)
	var all sync.WaitGroup
	for i, target := range targets {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			results[i] = attempt(ctx, target, *timeout)
		})
	}
	all.Wait()
	return out.print(results)
}

// resolve looks up the addresses of a name, of both families.
func resolve(ctx context.Context, args []string, out *printer) error {
	flags := flag.NewFlagSet("resolve", flag.ContinueOnError)
	server := flags.String("server", "",
		"address of the DNS server to ask, at port 53, instead of those in /etc/resolv.conf")
	timeout := flags.Duration("timeout", 5*time.Second, "how long to try")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("expected one name")
	}
	resolver := &net.Resolver{PreferGo: true}
	if *server != "" {
		addr, err := netip.ParseAddr(*server)
		if err != nil {
			return err
		}
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(addr, 53).String())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	resolved := testprogram.Resolved{Name: flags.Arg(0), Addresses: []netip.Addr{}}
	addrs, err := resolver.LookupNetIP(ctx, "ip", resolved.Name)
	if err != nil {
		resolved.Error = err.Error()
	}
	for _, addr := range addrs {
		resolved.Addresses = append(resolved.Addresses, addr.Unmap())
	}
	slices.SortFunc(resolved.Addresses, netip.Addr.Compare)
	return out.print(resolved)
}
