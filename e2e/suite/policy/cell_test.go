package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// cell is one connection and what must become of it.
type cell struct {
	from, to string // names in the world
	answer   string // the destination's name in answers
	protocol string
	port     int // the destination's own
	family   corev1.IPFamily
	source   netip.Addr // what the destination must see as the client; zero: any
	dest     netip.Addr // the destination's own address
	service  string     // the target of a Service that leads there; empty: direct
	want     bool
	got      testprogram.Result
}

// path is how the connection goes, for tables.
func (c *cell) path() string {
	if c.service != "" {
		return "through a Service"
	}
	return "direct"
}

// target is what the test program connects to.
func (c *cell) target() string {
	if c.service != "" {
		return c.service
	}
	return testprogram.NewTarget(c.protocol, c.dest, uint16(c.port)).String()
}

// wrong says what isn't as it must be, or "".
func (c *cell) wrong() string {
	switch {
	case c.got.Target == "":
		return "not tried"
	case !c.want && c.got.Kind != testprogram.Timeout:
		return "must time out"
	case !c.want:
		return ""
	case !c.got.OK:
		return "must connect"
	case c.protocol == testprogram.ICMP:
		return ""
	}
	server, client, _ := strings.Cut(c.got.Reply, " ")
	if server != c.answer {
		return "must be answered by " + c.answer
	}
	seen, err := netip.ParseAddrPort(client)
	if c.source.IsValid() && (err != nil || seen.Addr() != c.source) {
		return "must be seen as " + c.source.String()
	}
	return ""
}

// mismatches are the cells that aren't as they must be.
func mismatches(cells []*cell) []*cell {
	var out []*cell
	for _, c := range cells {
		if c.wrong() != "" {
			out = append(out, c)
		}
	}
	return out
}

// tableLimit is how many lines a table of mismatches has at most.
const tableLimit = 60

// table renders cells that aren't as they must be.
func table(cells []*cell) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tPORT\tFAMILY\tPATH\tMUST\tGOT")
	for _, c := range cells[:min(len(cells), tableLimit)] {
		fmt.Fprintf(w, "%s\t%s\t%s/%d\t%s\t%s\t%s\t%s\n", c.from, c.to, c.protocol, c.port,
			c.family, c.path(), c.wrong(), c.got)
	}
	_ = w.Flush() // to memory
	if more := len(cells) - tableLimit; more > 0 {
		fmt.Fprintf(&out, "and %d more\n", more)
	}
	return out.String()
}

// source is where connections start: a pod, or a host outside.
type source interface {
	TryConnect(ctx context.Context, targets ...string) ([]testprogram.Result, error)
}

// bySource groups cells by where they start, in the order of the names.
func bySource(cells []*cell) [][]*cell {
	groups := map[string][]*cell{}
	var names []string
	for _, c := range cells {
		if groups[c.from] == nil {
			names = append(names, c.from)
		}
		groups[c.from] = append(groups[c.from], c)
	}
	slices.Sort(names)
	out := make([][]*cell, len(names))
	for i, name := range names {
		out[i] = groups[name]
	}
	return out
}
