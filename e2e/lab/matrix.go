package lab

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-net/sluice/e2e/internal/podprogram"
	"github.com/sluice-net/sluice/test/probe"
)

// outsidePort is what the outside host serves.
const outsidePort = 80

// probeTimeout is how long silence lasts before a cell of the matrix counts as denied: longer than
// a busy machine hesitates.
const probeTimeout = 700 * time.Millisecond

// probesAtOnce is how many connections Probe tries at the same time.
const probesAtOnce = 32

// Matrix is who reaches whom. Its String is a table.
type Matrix struct {
	Cells []Cell // by From, To, protocol, port and address
}

// Cell is one connection of a Matrix.
type Cell struct {
	From, To string // places
	Protocol probe.Protocol
	Dst      netip.AddrPort
	Result   probe.Result
}

// Denied says whether the connection failed as a denied one does: in silence, or by a reset.
func (c Cell) Denied() bool {
	return errors.Is(c.Result.Err, probe.ErrTimeout) || errors.Is(c.Result.Err, probe.ErrReset)
}

// target is an address and port that Probe connects to.
type target struct {
	place    string
	protocol probe.Protocol
	dst      netip.AddrPort
}

// Probe connects from every pod, every node and the outside host to every port of every pod and of
// the outside host, over each family. From and to, if not nil, say which places take part. The
// error is about the lab, not about a connection.
func (v *View) Probe(ctx context.Context, from, to func(place string) bool) (Matrix, error) {
	pods, err := v.Pods()
	if err != nil {
		return Matrix{}, err
	}
	var sources []string
	var targets []target
	for _, pod := range pods {
		sources = append(sources, pod.Name)
		targets = append(targets, targetsOf(pod.Name, pod.Addresses, pod.Ports)...)
	}
	sources = append(append(sources, v.NodeNames()...), Outside)
	targets = append(targets, targetsOf(Outside, v.plan.host(0, outsideFirst),
		[]podprogram.Port{{Protocol: probe.TCP, Number: outsidePort}})...)

	var matrix Matrix
	for _, source := range sources {
		for _, t := range targets {
			if (from == nil || from(source)) && (to == nil || to(t.place)) {
				matrix.Cells = append(matrix.Cells,
					Cell{From: source, To: t.place, Protocol: t.protocol, Dst: t.dst})
			}
		}
	}
	v.fill(ctx, matrix.Cells)
	return matrix, context.Cause(ctx)
}

func targetsOf(place string, addrs []netip.Addr, ports []podprogram.Port) []target {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b podprogram.Port) int {
		return cmp.Or(cmp.Compare(protocolOrder(a.Protocol), protocolOrder(b.Protocol)),
			cmp.Compare(a.Number, b.Number))
	})
	var targets []target
	for _, port := range ports {
		for _, addr := range addrs {
			targets = append(targets, target{place: place, protocol: port.Protocol,
				dst: netip.AddrPortFrom(addr, port.Number)})
		}
	}
	return targets
}

func protocolOrder(p probe.Protocol) int {
	return slices.Index([]probe.Protocol{probe.TCP, probe.UDP, probe.SCTP}, p)
}

// fill tries all connections.
func (v *View) fill(ctx context.Context, cells []Cell) {
	next := make(chan *Cell)
	var done sync.WaitGroup
	for range probesAtOnce {
		done.Go(func() {
			for cell := range next {
				cell.Result = v.Connect(ctx, cell.From, cell.Protocol, cell.Dst,
					probe.WithTimeout(probeTimeout))
			}
		})
	}
	for i := range cells {
		next <- &cells[i]
	}
	close(next)
	done.Wait()
}
