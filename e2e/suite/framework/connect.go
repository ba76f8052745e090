package framework

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/onsi/gomega"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// Source is where connections start: a Pod, or an Outside.
type Source interface {
	// TryConnect runs "testpod connect" once: one new flow to each target, all at once. The results
	// are in the targets' order; the error says why it couldn't be run.
	TryConnect(ctx context.Context, targets ...string) ([]testprogram.Result, error)
	// String names it in failure messages.
	String() string
}

// Target is what the test program connects to: protocol "tcp", "udp", "sctp" or "icmp" (which has
// no port).
func Target(protocol string, addr netip.Addr, port int) string {
	return testprogram.NewTarget(protocol, addr, uint16(port)).String()
}

// TryConnect is Source's.
func (p *Pod) TryConnect(ctx context.Context, targets ...string) ([]testprogram.Result, error) {
	stdout, err := p.Exec(ctx, append([]string{"connect"}, targets...)...)
	return readResults(stdout, len(targets), err)
}

func readResults(stdout string, want int, err error) ([]testprogram.Result, error) {
	if err != nil {
		return nil, err
	}
	var results []testprogram.Result
	if err := json.Unmarshal([]byte(stdout), &results); err != nil {
		return nil, fmt.Errorf("reading %q: %w", stdout, err)
	}
	if len(results) != want {
		return nil, fmt.Errorf("%d results for %d targets: %q", len(results), want, stdout)
	}
	return results, nil
}

// Connect connects once to every target and returns the results in their order. Only that the
// program couldn't be run in the pod is tried again.
func (p *Pod) Connect(ctx context.Context, targets ...string) []testprogram.Result {
	return connectFrom(ctx, p, targets)
}

func connectFrom(ctx context.Context, from Source, targets []string) []testprogram.Result {
	var results []testprogram.Result
	gomega.EventuallyWithOffset(2, ctx, func(ctx context.Context) (err error) {
		results, err = from.TryConnect(ctx, targets...)
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "connecting from %s", from)
	return results
}

// ExpectReaches tries until every target has answered in one and the same attempt.
func ExpectReaches(ctx context.Context, from Source, targets ...string) {
	expectAll(ctx, from, targets, "reach", func(result testprogram.Result) bool {
		return result.OK
	})
}

// ExpectRefused tries until every target is denied, in silence or by a reset, in two attempts in a
// row. Another failure, such as a name that isn't known or no route, is no denial.
func ExpectRefused(ctx context.Context, from Source, targets ...string) {
	refused := func(result testprogram.Result) bool { return result.Kind.Denied() }
	expectAll(ctx, from, targets, "be refused by", refused)
	results := connectFrom(ctx, from, targets)
	gomega.ExpectWithOffset(1, unlike(results, refused)).
		To(gomega.BeEmpty(), "a moment after all was refused once, from %s", from)
}

func expectAll(ctx context.Context, from Source, targets []string, verb string,
	wanted func(testprogram.Result) bool) {
	gomega.ExpectWithOffset(2, targets).NotTo(gomega.BeEmpty(), "targets for %s to %s", from, verb)
	gomega.EventuallyWithOffset(2, ctx, func(ctx context.Context) error {
		results, err := from.TryConnect(ctx, targets...)
		if err != nil {
			return err
		}
		if others := unlike(results, wanted); len(others) > 0 {
			return fmt.Errorf("%d of %d don't:\n  %s", len(others), len(targets),
				strings.Join(others, "\n  "))
		}
		return nil
	}).WithContext(ctx).Should(gomega.Succeed(), "%s should %s every target", from, verb)
}

// unlike describes the results that aren't as wanted.
func unlike(results []testprogram.Result, wanted func(testprogram.Result) bool) []string {
	var others []string
	for _, result := range results {
		if !wanted(result) {
			others = append(others, result.String())
		}
	}
	return others
}
