package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
	"github.com/sluice-net/sluice/test/stretch"
)

// podsManifest is the pods: one of each namespace on each node.
const podsManifest = `
apiVersion: v1
kind: Pod
metadata: {namespace: %[1]s, name: %[2]s, labels: {app: myapp}}
spec:
  nodeName: %[3]s
  containers:
  - name: myapp
    image: myapp
    ports: [{containerPort: 80}, {containerPort: 443}, {containerPort: 8080}]
    readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
`

// Pods of these manifests.
const devPod, otherDevPod, prodPod = "dev/myapp-1", "dev/myapp-2", "prod/myapp-1"

// samplePeer is the address that config/samples excepts; the demo puts a pod's own there.
const samplePeer = "10.244.1.5/32"

// demo is the state that the steps share.
type demo struct {
	lab      *lab.Lab
	samples  string
	pods     []string
	excepted lab.Pod
	// printed at the end: what stood in the kernel, and why, before all was deleted.
	endnote string
}

// step is one change of the policies and what must hold after it.
type step struct {
	title string
	// change applies it; the time is taken from its return.
	change func(ctx context.Context) error
	// watch is a connection whose verdict the change turns; empty: none.
	watch watch
	holds func(c lab.Cell) bool
	after func(ctx context.Context) error
}

type watch struct {
	from, to string
	port     uint16
}

// startPods makes the namespaces and pods and waits until all are ready.
func (d *demo) startPods(ctx context.Context) error {
	if err := d.apply(ctx, "namespaces.yaml"); err != nil {
		return err
	}
	for _, namespace := range []string{"dev", "prod"} {
		for i, node := range d.lab.NodeNames() {
			name := fmt.Sprintf("myapp-%d", i+1)
			if err := d.lab.Apply(ctx,
				fmt.Sprintf(podsManifest, namespace, name, node)); err != nil {
				return err
			}
			d.pods = append(d.pods, namespace+"/"+name)
		}
	}
	if err := d.lab.WaitReady(ctx, d.pods...); err != nil {
		return err
	}
	var err error
	d.excepted, err = d.lab.Pod("prod/myapp-2")
	return err
}

// manifest reads a sample; the excepted address becomes that of a pod here.
func (d *demo) manifest(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(d.samples, name))
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(string(text), samplePeer, d.excepted.Addr4().String()+"/32"), nil
}

func (d *demo) apply(ctx context.Context, names ...string) error {
	for _, name := range names {
		text, err := d.manifest(name)
		if err != nil {
			return err
		}
		if err := d.lab.Apply(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		text, err := d.manifest(name)
		if err != nil {
			return err
		}
		if err := d.lab.Delete(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

func inDev(place string) bool  { return strings.HasPrefix(place, "dev/") }
func inProd(place string) bool { return strings.HasPrefix(place, "prod/") }

// allow80 says what allow-80-ingress lets in: IPv4 from the pod network, the excepted pod aside, to
// two ports. The IPv6 network isn't in its block.
func (d *demo) allow80(c lab.Cell) bool {
	return c.From != lab.Outside && c.From != d.excepted.Name && c.Dst.Addr().Is4() &&
		(c.Dst.Port() == 80 || c.Dst.Port() == 443)
}

func (d *demo) steps() []step {
	all := func(lab.Cell) bool { return true }
	denyDev := func(c lab.Cell) bool { return !inDev(c.To) || c.From == c.To }
	allowDev := func(c lab.Cell) bool { return denyDev(c) || d.allow80(c) }
	denyProd := func(c lab.Cell) bool { return allowDev(c) && (!inProd(c.From) || c.From == c.To) }
	apply := func(name string) func(context.Context) error {
		return func(ctx context.Context) error { return d.apply(ctx, name) }
	}
	return []step{
		{title: "no policy: everything connects", holds: all},
		{
			title: "deny-all-ingress in dev: nothing reaches dev, but dev still gets out and " +
				"prod stays open", holds: denyDev,
			change: apply("deny-all-ingress.yaml"), watch: watch{lab.Outside, devPod, 80},
			after: d.probesStayGreen,
		},
		{
			title: "allow-80-ingress in dev: ports 80 and 443 from the pod network (IPv4), " +
				"except from " + d.excepted.Name,
			change: apply("allow-80-ingress.yaml"), watch: watch{prodPod, devPod, 80},
			holds: allowDev, after: d.probesStayGreen,
		},
		{
			title:  "deny-all-egress in prod: prod reaches nobody, dev's policies are as before",
			holds:  denyProd,
			change: apply("deny-all-egress.yaml"), watch: watch{prodPod, lab.Outside, 80},
			after: d.takeNotes,
		},
		{
			title: "delete all policies: everything connects again", holds: all,
			change: func(ctx context.Context) error {
				return d.delete(ctx, "deny-all-ingress.yaml", "allow-80-ingress.yaml",
					"deny-all-egress.yaml")
			},
			watch: watch{lab.Outside, devPod, 80}, after: d.printNotes,
		},
	}
}

// walk carries out a step: the change, how long it took to be in force, and the matrix after it,
// every cell of it checked.
func (d *demo) walk(ctx context.Context, number int, s step) error {
	fmt.Printf("\n== %d. %s\n", number, s.title)
	if s.change != nil {
		took, err := d.enforce(ctx, s)
		if err != nil {
			return err
		}
		fmt.Printf("in force %.1f ms after the API's answer (%s -> %s:%d)\n",
			float64(took.Microseconds())/1000, s.watch.from, s.watch.to, s.watch.port)
	}
	if err := d.check(ctx, s); err != nil {
		return err
	}
	if s.after != nil {
		return s.after(ctx)
	}
	return nil
}

// enforceLimit is how long a change may take to be in force.
var enforceLimit = stretch.By(10 * time.Second)

// tryFor is how long one try may take. A try that succeeds takes less, and a longer denied one
// would show no more.
var tryFor = stretch.By(10 * time.Millisecond)

// enforce makes the change and tries one connection over and over until its verdict is the new one.
// The time until the first such try began counts.
func (d *demo) enforce(ctx context.Context, s step) (time.Duration, error) {
	addr := d.lab.OutsideAddrs()[0]
	if s.watch.to != lab.Outside {
		pod, err := d.lab.Pod(s.watch.to)
		if err != nil {
			return 0, err
		}
		addr = pod.Addr4()
	}
	cell := lab.Cell{From: s.watch.from, To: s.watch.to, Protocol: probe.TCP,
		Dst: netip.AddrPortFrom(addr, s.watch.port)}
	want := s.holds(cell)
	if err := s.change(ctx); err != nil {
		return 0, err
	}
	answered := time.Now()
	for {
		began := time.Now()
		cell.Result = d.lab.Connect(ctx, cell.From, cell.Protocol, cell.Dst,
			probe.WithTimeout(tryFor))
		if cell.Result.OK == want {
			return began.Sub(answered), nil
		}
		if began.Sub(answered) > enforceLimit || ctx.Err() != nil {
			return 0, fmt.Errorf("after %v: %s", enforceLimit, describe(cell, want))
		}
	}
}
