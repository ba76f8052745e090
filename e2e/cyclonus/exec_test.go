package cyclonus

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/mattfenwick/cyclonus/pkg/worker"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

const (
	// settle is how long after a change the first round of probes begins: a cell that connects
	// sooner might do so because nothing has changed yet. Where the change denies a cell, that cell
	// shows that it is in force; where it denies none, only this time does.
	settle = 250 * time.Millisecond
	// silence is how long the first round waits for answers.
	silence    = 500 * time.Millisecond
	maxSilence = 4 * time.Second
	// retries is how often cyclonus probes again after a round that isn't what it expects. Only the
	// cells that weren't are tried again; each round begins when twice the time has passed since
	// the change, until 16 s have, and waits twice as long for answers: a busy machine isn't a
	// denial.
	retries = 12
	doubles = 6
	// atOnce is how many cells that should connect are tried at the same time. Those that shouldn't
	// wait all together.
	atOnce = 48
)

// ExecuteRemoteCommand is called to run cyclonus' worker in a pod, for all cells that begin there.
// The connections are made from the pod's network namespace instead, all at once.
func (c *labCluster) ExecuteRemoteCommand(namespace, pod, _ string,
	command []string) (stdout, stderr string, commandErr, err error) {
	var batch worker.Batch
	if len(command) != 3 || command[1] != "--jobs" {
		return "", "", nil, fmt.Errorf("running %q in a pod: expected cyclonus' worker", command)
	}
	if err := json.Unmarshal([]byte(command[2]), &batch); err != nil {
		return "", "", nil, fmt.Errorf("reading the worker's jobs: %w", err)
	}
	results, err := c.probe(namespace+"/"+pod, batch.Requests)
	if err != nil {
		return "", "", nil, err
	}
	out, err := json.Marshal(results)
	return string(out), "", nil, err
}

// probe tries all cells from one pod, over each family, but for those that were as expected since
// the last change.
func (c *labCluster) probe(from string, requests []*worker.Request) ([]worker.Result, error) {
	timeout, err := c.nextRound(from)
	if err != nil {
		return nil, err
	}
	expected, err := c.expectation()
	if err != nil {
		return nil, err
	}
	pods, err := c.lab.Pods()
	if err != nil {
		return nil, err
	}
	path, err := c.lab.NetNS(from)
	if err != nil {
		return nil, err
	}
	netns, err := ns.GetNS(path) // once, since it is entered a hundred times
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace of %s: %w", from, err)
	}
	defer netns.Close()
	results := make([]worker.Result, len(requests))
	allowed := make([]bool, len(requests))
	var all sync.WaitGroup
	for i, request := range requests {
		results[i].Request = request
		target, err := podAt(pods, request.Host)
		if err != nil {
			return nil, err
		}
		if target.Name == from {
			allowed[i] = true
			continue // which cyclonus ignores
		}
		allowed[i] = expected.allows(from, target.Name, request)
		if c.asExpected(request.Key) {
			if !allowed[i] {
				results[i].Error = "denied in an earlier round"
			}
			continue
		}
		all.Go(func() { results[i].Error = c.cell(netns, target, request, timeout, allowed[i]) })
	}
	all.Wait()
	c.forgetEarly(results, allowed)
	return results, nil
}

// forgetEarly has the cells that connect tried again if one does that shouldn't: the change wasn't
// in force yet.
func (c *labCluster) forgetEarly(results []worker.Result, allowed []bool) {
	early := false
	for i, r := range results {
		early = early || !allowed[i] && r.IsSuccess()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range results {
		if early && allowed[i] {
			delete(c.right, r.Request.Key)
		}
	}
}

// asExpected says whether a cell was, since the last change.
func (c *labCluster) asExpected(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.right[key]
}

// nextRound waits until it is time to probe, and says how long to wait for answers.
func (c *labCluster) nextRound(from string) (timeout time.Duration, err error) {
	c.mu.Lock()
	round := c.rounds[from]
	c.rounds[from]++
	begin := c.changed.Add(settle << min(round, doubles))
	c.mu.Unlock()
	timer := time.NewTimer(time.Until(begin))
	defer timer.Stop()
	select {
	case <-timer.C:
		return min(silence<<min(round, doubles), maxSilence), nil
	case <-c.ctx.Done():
		return 0, context.Cause(c.ctx)
	}
}

func podAt(pods []lab.Pod, host string) (lab.Pod, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return lab.Pod{}, fmt.Errorf("reading a probe's target: %w", err)
	}
	i := slices.IndexFunc(pods, func(p lab.Pod) bool { return slices.Contains(p.Addresses, addr) })
	if i < 0 {
		return lab.Pod{}, fmt.Errorf("no pod has the address %s", host)
	}
	return pods[i], nil
}

// cell connects over each family. It returns why not, or "" if the cell counts as one that
// connects: if that is expected, by all families; else by any, or by a failure that isn't a denial.
func (c *labCluster) cell(from ns.NetNS, to lab.Pod, request *worker.Request, timeout time.Duration,
	allowed bool) (refusal string) {
	if allowed {
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
	}
	protocol := probe.Protocol(strings.ToLower(string(request.Protocol)))
	results := make([]probe.Result, len(c.families))
	var all sync.WaitGroup
	for i, family := range c.families {
		dst := netip.AddrPortFrom(to.Addresses[slices.IndexFunc(to.Addresses, family.has)],
			uint16(request.Port))
		all.Go(func() {
			err := from.Do(func(ns.NetNS) error {
				results[i] = probe.Connect(protocol, dst, probe.WithTimeout(timeout))
				return nil
			})
			if err != nil {
				results[i] = probe.Result{Err: err}
			}
		})
	}
	all.Wait()
	right := true
	var texts []string
	for i, r := range results {
		texts = append(texts, fmt.Sprintf("%s %s", c.families[i], r))
		if allowed {
			right = right && r.OK
		} else {
			right = right && !r.OK && lab.Cell{Result: r}.Denied()
		}
	}
	text := strings.Join(texts, ", ")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[request.Key], c.right[request.Key] = text, right
	if right == allowed {
		return ""
	}
	return text
}
