package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/e2e/lab/wait"
	"github.com/sluice-net/sluice/test/stretch"
)

// lateness is how long an emulated machine may be late: another node with a change that is in force
// on one, a pod with a readiness probe. Elsewhere there is none.
func lateness() time.Duration {
	if stretch.Factor() > 1 {
		return enforceLimit
	}
	return 0
}

// check prints the matrix and holds every cell of it to what must hold. Silence on a busy machine
// isn't a denial, so a cell that ought to connect is asked once more.
func (d *demo) check(ctx context.Context, s step) error {
	takesPart := func(place string) bool {
		return place == lab.Outside || strings.Contains(place, "/")
	}
	matrix, err := d.lab.Probe(ctx, takesPart, nil)
	if err != nil {
		return err
	}
	var wrong []string
	for i := range matrix.Cells {
		cell := &matrix.Cells[i]
		if cell.From == lab.Outside && cell.To == lab.Outside {
			continue
		}
		want := s.holds(*cell)
		if want && !cell.Result.OK {
			cell.Result = d.lab.Reach(ctx, cell.From, cell.Protocol, cell.Dst)
		} else if !want && !cell.Denied() {
			d.untilDenied(ctx, cell)
		}
		if cell.Result.OK != want || !want && !cell.Denied() {
			wrong = append(wrong, describe(*cell, want))
		}
	}
	fmt.Print(matrix)
	fmt.Println(lab.Legend)
	if len(wrong) > 0 {
		return fmt.Errorf("%d of %d connections are wrong:\n  %s", len(wrong), len(matrix.Cells),
			strings.Join(wrong, "\n  "))
	}
	fmt.Printf("all %d connections as expected\n", len(matrix.Cells))
	return nil
}

// untilDenied asks again until the connection is denied, as long as lateness allows.
func (d *demo) untilDenied(ctx context.Context, cell *lab.Cell) {
	for end := time.Now().Add(lateness()); !cell.Denied() && time.Now().Before(end); {
		cell.Result = d.lab.Connect(ctx, cell.From, cell.Protocol, cell.Dst)
	}
}

func describe(c lab.Cell, want bool) string {
	expected := "denied"
	if want {
		expected = "allowed"
	}
	return fmt.Sprintf("%s -> %s %s %s: expected %s, got %s", c.From, c.To, c.Protocol, c.Dst,
		expected, c.Result)
}

// probesStayGreen checks that every pod is ready: its node may always reach it.
func (d *demo) probesStayGreen(ctx context.Context) error {
	for end := time.Now().Add(lateness()); ; {
		ready, err := d.readyPods(ctx)
		if err != nil {
			return err
		}
		if ready == len(d.pods) {
			fmt.Printf("readiness probes: %d of %d pods ready\n", ready, len(d.pods))
			return nil
		}
		if time.Now().After(end) || !wait.Pause(ctx, wait.PollEvery) {
			return fmt.Errorf(
				"%d of %d pods are ready: their probes come from the node and must not be stopped",
				ready, len(d.pods))
		}
	}
}

func (d *demo) readyPods(ctx context.Context) (ready int, err error) {
	var pods corev1.PodList
	if err := d.lab.Client().List(ctx, &pods); err != nil {
		return 0, err
	}
	for _, pod := range pods.Items {
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	return ready, nil
}

// takeNotes collects, while the policies hold, what is printed at the end.
func (d *demo) takeNotes(ctx context.Context) error {
	if err := d.probesStayGreen(ctx); err != nil {
		return err
	}
	pod, err := d.lab.Pod(devPod)
	if err != nil {
		return err
	}
	node := pod.Node
	chains, err := d.podChains(ctx, pod)
	if err != nil {
		return err
	}
	allowed, err1 := d.lab.Why(ctx, node, otherDevPod, pod.Addr4().String(), "80")
	denied, err2 := d.lab.Why(ctx, node, d.excepted.Addr4().String(), pod.Name, "80")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	d.endnote = fmt.Sprintf(
		"\n== What stood in the kernel of %s for %s while the policies held\n%s\n"+
			"== sluice-agent why dev/myapp-2 %s 80\n%s\n\n== sluice-agent why %s %s 80\n%s\n",
		node, pod.Name, chains, pod.Addr4(), allowed, d.excepted.Addr4(), pod.Name, denied)
	return nil
}

func (d *demo) printNotes(context.Context) error {
	fmt.Print(d.endnote)
	return nil
}

// podChains lists the chain of a pod and those it jumps to.
func (d *demo) podChains(ctx context.Context, pod lab.Pod) (string, error) {
	listing, err := d.lab.Nft(ctx, pod.Node, "list", "table", "inet", "sluice")
	if err != nil {
		return "", err
	}
	chains := map[string]string{}
	var order []string
	for block := range strings.SplitSeq(listing, "\n\n") {
		if _, rest, ok := strings.Cut(block, "chain "); ok {
			name, _, _ := strings.Cut(rest, " ")
			chains[name] = strings.TrimRight(
				strings.TrimSuffix(strings.TrimRight(block, "\n"), "\n}"), "\n")
			order = append(order, name)
		}
	}
	var out strings.Builder
	var show func(name string)
	show = func(name string) {
		out.WriteString(chains[name] + "\n")
		for line := range strings.SplitSeq(chains[name], "\n") {
			if _, target, ok := strings.Cut(line, "jump "); ok {
				show(strings.Fields(target)[0])
			}
		}
	}
	for _, name := range order {
		if strings.HasPrefix(name, "pod/"+pod.Name+"/") && strings.HasSuffix(name, "/ingress") {
			show(name)
		}
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("no chain of %s in\n%s", pod.Name, listing)
	}
	return out.String(), nil
}
