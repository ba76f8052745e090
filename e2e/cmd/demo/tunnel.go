package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/capture"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// captureLimit is how long a captured packet may take to be seen.
var captureLimit = stretch.By(10 * time.Second)

// tcpSYN is the flag of a connection's first packet.
const tcpSYN = 2

// showTunnel connects pods on different nodes while it looks at the cable of the client's node, and
// fails unless all that the connections sent there is in VXLAN packets.
func (d *demo) showTunnel(ctx context.Context) error {
	client, err := d.lab.Pod(devPod)
	if err != nil {
		return err
	}
	server, err := d.lab.Pod("prod/myapp-2")
	if err != nil {
		return err
	}
	if client.Node == server.Node {
		return fmt.Errorf("%s and %s are both on %s", client.Name, server.Name, client.Node)
	}
	fmt.Printf("\n== 0. %s on %s talks to %s on %s: what is on the cable between them\n",
		client.Name, client.Node, server.Name, server.Node)
	for _, addr := range server.Addresses {
		if err := d.showConnection(ctx, client, netip.AddrPortFrom(addr, 80)); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) showConnection(ctx context.Context, client lab.Pod, to netip.AddrPort) error {
	isPods := func(p capture.Packet) bool {
		inner := p.Innermost()
		return slices.Contains(client.Addresses, inner.Src.Addr()) && inner.Dst == to
	}
	capture, err := d.lab.Capture(client.Node, "eth0", isPods)
	if err != nil {
		return err
	}
	result := d.lab.Connect(ctx, client.Name, probe.TCP, to)
	ctx, cancel := context.WithTimeout(ctx, captureLimit)
	defer cancel()
	_, waitErr := capture.Wait(ctx, 1)
	packets, err := capture.Stop()
	if err != nil {
		return err
	}
	if !result.OK {
		return fmt.Errorf("%s -> %s: %s", client.Name, to, result)
	}
	if waitErr != nil {
		return waitErr
	}
	for _, p := range packets {
		if p.VXLAN == nil {
			return fmt.Errorf("%s -> %s went over the cable outside the tunnel: %s",
				client.Name, to, p)
		}
		if p.VXLAN.Inner.IsTCP(tcpSYN) {
			fmt.Println("first packet:", p)
		}
	}
	fmt.Printf("%s -> %s: %s; %d packets from the client, each in VXLAN\n", client.Name, to, result,
		len(packets))
	return nil
}
