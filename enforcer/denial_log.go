package enforcer

import (
	"context"
	"net/netip"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/internal/pause"
	"github.com/sluice-net/sluice/internal/printable"
	"github.com/sluice-net/sluice/nflog"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/ruleset"
)

// DenialLog logs denied packets: one line for each sample that the rules send to an NFLOG group.
// The rules bound the samples of a pod, and of a rule that denies to many pods: one of these can
// use them up. DenialLog bounds the lines of the node.
type DenialLog struct {
	Enforcer *Enforcer
	Group    uint16
	// netNS is a file descriptor of the network namespace; 0: this one.
	netNS int
	Log   logr.Logger
}

// linesPerSecond bounds what one node logs of denials.
const linesPerSecond = 100

// SamplesPerSecond is perSecond where the kernel can log to NFLOG groups. Elsewhere it is 0, with
// one log line: such a kernel refuses every rule that logs, and enforcement doesn't need samples.
func SamplesPerSecond(perSecond uint64, group uint16, log logr.Logger) uint64 {
	if perSecond == 0 {
		return 0
	}
	if err := nflog.Available(nflog.Options{Group: group}); err != nil {
		log.Error(err,
			"This kernel can't log denied packets (nfnetlink_log); they are counted only")
		return 0
	}
	return perSecond
}

// Run logs until ctx ends. Where the group can't be read, for instance because another process has
// it, Run logs that once and tries again: enforcement doesn't need it.
func (l *DenialLog) Run(ctx context.Context) error {
	retry, said := firstRetry, false
	for ctx.Err() == nil {
		err := l.read(ctx, func() { retry, said = firstRetry, false })
		if ctx.Err() == nil && !said {
			l.Log.Error(err, "Denied packets can't be logged; trying again", "group", l.Group)
			said = true
		}
		pause.For(ctx, retry)
		retry = min(2*retry, lastRetry)
	}
	return nil
}

func (l *DenialLog) read(ctx context.Context, opened func()) error {
	reader, err := nflog.Open(nflog.Options{Group: l.Group, NetNS: l.netNS})
	if err != nil {
		return err
	}
	defer reader.Close()
	opened()
	budget := denialBudget{most: linesPerSecond}
	return reader.Run(ctx, func(r nflog.Record) {
		direction, ours := ruleset.SampleDirection(r.Prefix)
		if !ours {
			return
		}
		l.Enforcer.opts.Metrics.denialsLeftOut.Add(float64(r.Lost))
		leftOut, ok := budget.take(time.Now(), l.Enforcer.namespaceAt(judgedEnd(direction, &r)),
			uint64(r.Lost))
		if !ok {
			l.Enforcer.opts.Metrics.denialsLeftOut.Inc()
			return
		}
		l.Enforcer.opts.Metrics.denialsLogged.Inc()
		answer := l.Enforcer.Explain(policy.Flow{Source: r.Source, Destination: r.Destination,
			Protocol: r.Protocol, Port: r.DestinationPort})
		l.Log.Info("Denied", denialLine(direction, &r, answer, leftOut)...)
	})
}

// denialLine returns, as keys and values, the denied flow and what denies it: a rule, or the
// policies that isolate the pod. They are those known now, a moment after the packet.
func denialLine(d policy.Direction, r *nflog.Record, a cluster.Answer, leftOut uint64) []any {
	out := []any{"direction", d.String(), "source", r.Source.String()}
	if a.Egress != nil {
		out = append(out, "sourcePod", a.Egress.Pod.Namespace+"/"+a.Egress.Pod.Name)
	}
	out = append(out, "destination", r.Destination.String())
	if a.Ingress != nil {
		out = append(out, "destinationPod", a.Ingress.Pod.Namespace+"/"+a.Ingress.Pod.Name)
	}
	out = append(out, "protocol", policy.ProtocolName(r.Protocol))
	switch {
	case r.Fragment:
		out = append(out, "fragment", true)
	case r.DestinationPort != 0:
		out = append(out, "port", r.DestinationPort, "sourcePort", r.SourcePort)
	case r.Protocol == policy.ProtocolICMP || r.Protocol == policy.ProtocolICMPv6:
		out = append(out, "type", r.Type, "code", r.Code)
	}
	decision := a.Ingress
	if d == policy.Egress {
		decision = a.Egress
	}
	switch {
	case decision == nil: // the pod has gone, or has another address now
	case decision.Allowed:
		out = append(out, "allowedNow", true)
	case decision.By != nil:
		out = append(out, "tier", decision.By.Tier.String(), "policy", decision.By.Policy.String(),
			"rule", decision.By.Rule)
		if decision.By.Name != "" {
			out = append(out, "ruleName", printable.Line(decision.By.Name))
		}
		if decision.Nearest != nil {
			out = append(out, "nearest", decision.Nearest.String())
		}
	default:
		out = append(out, "policies", policy.List(decision.Isolating, ","))
		if decision.Nearest != nil {
			out = append(out, "nearest", decision.Nearest.String())
		}
	}
	if leftOut > 0 {
		out = append(out, "leftOutBefore", leftOut)
	}
	return out
}

// judgedEnd is the address of the pod whose policies denied a packet.
func judgedEnd(d policy.Direction, r *nflog.Record) netip.Addr {
	if d == policy.Egress {
		return r.Source
	}
	return r.Destination
}

// denialBudget bounds the lines of each second, and counts those that it leaves out. A second
// begins with the first line after the last second's end. No namespace gets more lines than are
// left then, so that others always have some: of 100 lines, one namespace alone gets 50, and two
// that want more get 33 each.
type denialBudget struct {
	most    int
	since   time.Time
	lines   int
	by      map[string]int // lines of each namespace
	leftOut uint64
}

// take asks for a line about a pod of a namespace; some records may have been lost before it. It
// returns how many lines were left out since the last one, or false if there is no line left.
func (b *denialBudget) take(now time.Time, namespace string,
	lost uint64) (leftOut uint64, ok bool) {
	b.leftOut += lost
	if now.Sub(b.since) >= time.Second {
		b.since, b.lines, b.by = now, 0, map[string]int{}
	}
	if b.by[namespace] >= b.most-b.lines {
		b.leftOut++
		return 0, false
	}
	b.lines++
	b.by[namespace]++
	leftOut, b.leftOut = b.leftOut, 0
	return leftOut, true
}
