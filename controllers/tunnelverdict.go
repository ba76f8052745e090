package controllers

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/overlay/reach"
)

// tunnelCounts is how many of the peers are in which state.
type tunnelCounts struct {
	answering, silent int
	notReady          int // silent, and Kubernetes knows that they aren't ready
	untried           int
}

// tunnelTrouble is what is wrong with a tunnel.
type tunnelTrouble uint8

const (
	noTrouble  tunnelTrouble = iota
	someSilent               // and others answer
	allSilent                // for some time no node has answered, although packets come in
	nothingIn                // likewise, and nothing has come in
)

const (
	namedNodes    = 3  // that a note names
	reporterNodes = 3  // that report a silent node, besides itself
	judgedNodes   = 16 // silent ones that decide whether this node reports
)

// tunnelVerdict is the judgement on a tunnel.
type tunnelVerdict struct {
	trouble tunnelTrouble
	// ready nodes, by name: those that have been ready for some time; where no node answers, all
	// that are ready
	silent []string
	asked  int // nodes that are ready, and known to answer or to be silent
}

// judgeTunnel returns the state of the peers, and the trouble that has lasted for as long as grace:
// a shorter one, of a node that reboots for instance, is none. ready has the nodes that are ready,
// and since when.
func judgeTunnel(r reach.Report, ready map[string]time.Time, now time.Time,
	grace time.Duration) (n tunnelCounts, v tunnelVerdict) {
	lasts := func(since time.Time) bool { return now.Sub(since) >= grace }
	var lasting []string
	for _, p := range r.Peers {
		since, isReady := ready[p.Name]
		switch {
		case p.State == reach.Untried:
			n.untried++
		case p.State == reach.Answering:
			n.answering++
		case !isReady:
			n.notReady++
		default:
			n.silent++
			v.silent = append(v.silent, p.Name)
			if lasts(since) && lasts(p.Since) {
				lasting = append(lasting, p.Name)
			}
		}
	}
	v.asked = n.answering + n.silent
	switch {
	case len(lasting) == 0:
		v.silent = nil
	case !lasts(r.Answer):
		v.trouble, v.silent = someSilent, lasting
	case !lasts(r.Heard):
		v.trouble = allSilent
	default:
		v.trouble = nothingIn
	}
	return n, v
}

// same reports whether two verdicts read alike: where no node answers, names add nothing.
func (v tunnelVerdict) same(w tunnelVerdict) bool {
	return v.trouble == w.trouble && (v.trouble != someSilent || slices.Equal(v.silent, w.silent))
}

// reportsTunnel reports whether a node reports its tunnel. Each node reports a trouble on its own
// side; a few nodes report a node that is silent to all.
func reportsTunnel(node string, v tunnelVerdict, r reach.Report) bool {
	if v.trouble != someSilent {
		return true
	}
	nodes := []string{node}
	for _, p := range r.Peers {
		if p.State == reach.Answering {
			nodes = append(nodes, p.Name)
		}
	}
	return slices.ContainsFunc(v.silent[:min(len(v.silent), judgedNodes)],
		func(silent string) bool {
			return notify.IsReporterAmong(node, nodes, silent, reporterNodes)
		})
}

// tunnelPlace is where a node's tunnel is, and what is in its way.
type tunnelPlace struct {
	port    uint16
	link    string // of the underlay; empty: whichever the routes say
	in, out string // chains that drop by their end, on input and on output
}

// note is the verdict in words.
func (v tunnelVerdict) note(p tunnelPlace, grace time.Duration) string {
	names := strings.Join(v.silent[:min(len(v.silent), namedNodes)], ", ")
	if more := len(v.silent) - namedNodes; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	port := fmt.Sprintf("UDP port %d", p.port)
	here := port
	if p.link != "" {
		here += " on " + p.link
	}
	const drops = "What drops here unless a rule of it accepts: "
	nobody := fmt.Sprintf("None of %d nodes has answered through the tunnel for %s (%s)", v.asked,
		grace, names)
	switch {
	case v.trouble == noTrouble:
		return ""
	case v.trouble == someSilent:
		return fmt.Sprintf(
			"%d of %d nodes don't answer through the tunnel (%s): see whether they accept %s.",
			len(v.silent), v.asked, names, port)
	case v.trouble == allSilent && p.out == "":
		return nobody +
			fmt.Sprintf(", although packets come in by it: see whether they accept %s.", port)
	case v.trouble == allSilent:
		return nobody + fmt.Sprintf(", although packets come in by it: see whether they accept "+
			"%s. %s%s. Accept %s there, going out.", port, drops, p.out, here)
	case p.in == "":
		return nobody + fmt.Sprintf(", and nothing has come in by it. No chain on input drops "+
			"here by its policy or last rule: another rule "+
			"may drop %s, or the network between the nodes.", here)
	default:
		return nobody + fmt.Sprintf(", and nothing has come in by it. %s%s. Accept %s there.",
			drops, p.in, here)
	}
}
