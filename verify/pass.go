package verify

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/policy/cluster"
	"github.com/sluice-net/sluice/verify/kernel"
)

// Result is what a Pass found.
type Result struct {
	// Differences are readable lines, at most maxDifferences of Total.
	Differences []Difference
	Total       int
	// Classes is how many classes of packets were compared, each with every protocol and port.
	Classes int
}

// maxDifferences is how many differences are kept.
const maxDifferences = 100

// Difference is a class of packets that the kernel doesn't treat as it should.
type Difference struct {
	Hook   kernel.Hook
	Class  kernel.Class
	Region kernel.Region
	// Who is the pod and direction, or what else the packets are.
	Who string
	// Kernel and Meaning are the packets' verdict, and the verdict that they should get, each with
	// what decides it.
	Kernel, Meaning string
}

// String is the difference as one line.
func (d Difference) String() string {
	c := &d.Class
	where := c.In
	if c.Out != "" {
		where += " > " + c.Out
	}
	kind := c.State.String()
	if c.NoSYN {
		kind += ", no SYN"
	}
	if c.Label != (kernel.Label{}) {
		kind += ", cut"
	}
	if c.State == kernel.Related {
		kind += fmt.Sprintf(" to %s and %s", c.OrigSrc, c.ReplySrc)
	}
	if c.Type != 0 {
		kind += fmt.Sprintf(", type %d, hop limit %d", c.Type, c.Hops)
	}
	return fmt.Sprintf("%s: %s > %s, %s (%s, %s, %s): the kernel %s; it should be: %s", d.Who,
		c.Src, c.Dst, d.Region, d.Hook, where, kind, d.Kernel, d.Meaning)
}

// A Pass is one comparison of all there is, in steps. It isn't safe for concurrent use.
type Pass struct {
	x       *expectations
	program *kernel.Program
	kernel  *kernel.Evaluator
	work    []func() error
	result  Result
	begun   bool

	groups [2][]netip.Addr // one address for each way to be treated, by family
	names  []string        // interfaces that aren't pods'
	veths  []string        // names of veths that aren't programmed
}

// NewPass returns a Pass over a program and the policies of the same moment.
func NewPass(p *kernel.Program, m *cluster.Meaning, n *Node) *Pass {
	return &Pass{x: newExpectations(n, m), program: p, kernel: kernel.NewEvaluator(p)}
}

// Step does some of the work: milliseconds of it, or, on big nodes, tens of them. more is false
// when all is done. An error says that the kernel can't be judged: a rule matches something that a
// class of packets doesn't determine.
func (p *Pass) Step() (more bool, err error) {
	if !p.begun {
		p.begun = true
		p.plan()
		return true, nil
	}
	if len(p.work) == 0 {
		return false, nil
	}
	next := p.work[0]
	p.work = p.work[1:]
	return len(p.work) > 0, next()
}

// Result is what was found so far.
func (p *Pass) Result() Result { return p.result }

// Run does all steps, and ends early with ctx.
func (p *Pass) Run(ctx context.Context) (Result, error) {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return p.result, err
		}
		var err error
		if more, err = p.Step(); err != nil {
			return p.result, err
		}
	}
	return p.result, nil
}

// compare compares one class's verdict with the one that it should get.
func (p *Pass) compare(hook kernel.Hook, c kernel.Class) error {
	p.result.Classes++
	got, err := p.kernel.Evaluate(hook, c)
	if err != nil {
		return fmt.Errorf("%s of %s > %s: %w", hook, c.Src, c.Dst, err)
	}
	want := p.x.expect(hook, &c)
	for _, part := range []struct {
		extra  kernel.Region
		kernel string
	}{
		{got.Pass.Minus(want.Pass), "passes it"},
		{got.Drop.Minus(want.Drop), "drops it"},
		{got.Reset.Minus(want.Reset), "answers with a reset"},
		{got.Untracked.Minus(want.Untracked), "doesn't track it"},
		{want.Untracked.Minus(got.Untracked), "tracks it"},
	} {
		if !part.extra.Empty() {
			p.differ(hook, c, part.extra, part.kernel, want)
		}
	}
	return nil
}

func (p *Pass) differ(hook kernel.Hook, c kernel.Class, region kernel.Region, kernel string,
	want *progress) {
	p.result.Total++
	if len(p.result.Differences) >= maxDifferences {
		return
	}
	p.result.Differences = append(p.result.Differences, Difference{
		Hook: hook, Class: c, Region: region, Who: p.x.who(hook, &c),
		Kernel:  kernel + " by " + p.kernel.Why(hook, c, region),
		Meaning: p.x.meant(hook, &c, region, want),
	})
}

// ends are the pods that judge a class.
func (x *expectations) ends(hook kernel.Hook,
	c *kernel.Class) (sender, receiver *cluster.Attachment) {
	sentOn := hook == kernel.Output && x.node.IPVS && !c.SrcLocal
	if hook != kernel.Forward && hook != kernel.Input && !sentOn {
		return nil, nil
	}
	if sender = x.alone[c.Src]; isVeth(c.In) {
		sender = x.links[link{c.Src, c.In}]
	}
	if hook != kernel.Input {
		receiver = x.receiverOf(c)
	}
	return sender, receiver
}

func (x *expectations) who(hook kernel.Hook, c *kernel.Class) string {
	sender, receiver := x.ends(hook, c)
	switch {
	case sender != nil && receiver != nil:
		return fmt.Sprintf("%s/%s to %s/%s", sender.Pod.Namespace, sender.Pod.Name,
			receiver.Pod.Namespace, receiver.Pod.Name)
	case sender != nil:
		return fmt.Sprintf("egress of %s/%s", sender.Pod.Namespace, sender.Pod.Name)
	case receiver != nil:
		return fmt.Sprintf("ingress of %s/%s", receiver.Pod.Namespace, receiver.Pod.Name)
	case isVeth(c.In) || isVeth(c.Out):
		return "a pod that isn't programmed"
	}
	return "no pod of this node"
}

// meant returns the verdict that the first point of a region should get.
func (x *expectations) meant(hook kernel.Hook, c *kernel.Class, region kernel.Region,
	want *progress) string {
	at := kernel.Region{{First: region[0].First, Last: region[0].First}}
	what := "passed"
	switch {
	case want.Drop.Contains(at):
		what = "dropped"
	case want.Reset.Contains(at):
		what = "reset"
	}
	if by := want.why(at); by != "" {
		return what + ", " + by
	}
	f := policy.Flow{Source: c.Src, Destination: c.Dst, Protocol: uint8(at[0].First >> 16),
		Port: uint16(at[0].First)}
	sender, receiver := x.ends(hook, c)
	if sender != nil {
		what += ", " + x.meaning.Why(sender.Pod, policy.Egress, f)
	}
	if receiver != nil {
		what += ", " + x.meaning.Why(receiver.Pod, policy.Ingress, f)
	}
	return what
}
