package enforcer

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/conntrack"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/ruleset"
	"github.com/sluice-net/sluice/test/packetworld"
	"github.com/sluice-net/sluice/test/testnet"
)

const denyDB = `{podSelector: {matchLabels: {app: db}}}`

// TestCutConnectionsStayCut: conntrack forgets a connection a while after its reset, and takes what
// comes then for a new one, in either direction.
func TestCutConnectionsStayCut(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
	forget := func() {
		t.Helper()
		if err := w.Node.Do(func() error {
			return exec.Command("conntrack", "-F").Run()
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, family := range packetworld.BothFamilies {
		for _, serverFirst := range []bool{false, true} {
			w.policies(map[string]string{"dev/p": ""})
			control := w.open(policy.ProtocolTCP, "dev/web", "dev/db", family, w.freePort(7000),
				netip.AddrPort{})
			forget()
			control.lives() // it is taken up in the middle, where policy lets it
			forget()
			if err := errors.Join(pass(control.server, control.client, cutPatience),
				pass(control.client, control.server, cutPatience)); err != nil {
				t.Fatalf("control, in reverse: %v", err)
			}
			c := w.open(policy.ProtocolTCP, "dev/web", "dev/db", family, w.freePort(7000),
				netip.AddrPort{})
			w.policies(map[string]string{"dev/p": denyDB}) // dev/db may still call dev/web
			c.awaitCut()
			c.dead(c.client, c.server)
			forget()
			first, second := c.client, c.server
			if serverFirst {
				first, second = second, first
			}
			// What comes to the client passes, as dev/db may call it, and is answered by a reset:
			// the client has learned that it is over.
			for _, at := range [][2]end{{first, second}, {second, first}} {
				if err := pass(at[0], at[1], silence); err == nil {
					t.Errorf("%s: a message passed after conntrack forgot the connection", c.what)
				}
			}
			w.eventually("the server learns of it", func() bool {
				return errors.Is(pass(c.server, c.client, silence), syscall.EPIPE)
			})
		}
	}
}

// TestLooseningRestores: a connection that is cut and not yet forgotten goes on when policy allows
// it again.
func TestLooseningRestores(t *testing.T) {
	t.Parallel()
	const fromWeb = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}, namespaceSelector: {}}]}]}`
	for name, loosen := range map[string]func(w *cutWorld){
		"policy deleted": func(w *cutWorld) { w.policies(map[string]string{"dev/p": ""}) },
		"policy edited": func(w *cutWorld) {
			w.policies(
				map[string]string{
					"dev/p": `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{protocol: UDP}]}]}`})
		},
		"peer relabelled": func(w *cutWorld) {
			w.relabel("prod/web", map[string]string{"app": "web"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
			var all []*connection
			for _, family := range packetworld.BothFamilies {
				all = append(all, w.open(policy.ProtocolUDP, "prod/web", "dev/db", family,
					w.freePort(7000), netip.AddrPort{}))
			}
			w.policies(map[string]string{"dev/p": fromWeb})
			w.relabel("prod/web", map[string]string{"app": "cold"})
			for _, c := range all {
				c.awaitCut()
				c.dead(c.client, c.server)
				c.dead(c.server, c.client)
			}
			w.quiet() // so that it isn't the second look at what was tightened that finds them
			loosen(w)
			for _, c := range all {
				w.eventually(c.what+" lives again", func() bool { return !c.isCut() })
				c.lives()
			}
		})
	}
}

// TestNoRoomForACut: connections older than the first rule that names labels can't be marked. They
// are forgotten, and what is left of them is judged as new.
func TestNoRoomForACut(t *testing.T) {
	t.Parallel()
	var all []*connection
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, func(w *cutWorld) {
		w.Node.NftInput("table inet tracking {\n chain c {\n type filter hook forward priority " +
			"5;\n ct state new accept\n }\n}\n")
		w.Node.Nft("delete", "table", "inet", "sluice")
		all = w.openAll(7000, flowsOf{{"dev/web", "dev/db"}}...)
	})
	for _, c := range all {
		c.lives()
	}
	w.policies(map[string]string{"dev/p": denyDB})
	for _, c := range all {
		w.eventually(c.what+" is forgotten", func() bool {
			return len(w.entries(func(e *conntrack.Entry) bool {
				return e.Orig.SrcPort == c.source.Port()
			})) == 0
		})
	}
	for _, c := range all {
		c.dead(c.client, c.server)
	}
}

// TestStartCuts: what an agent left behind, or couldn't do while it was away, the next one does at
// its start; and one that isn't to cut gives it back.
func TestStartCuts(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		var denied, wrongly []*connection
		w := newCutWorld(t, ruleset.Config{}, CutterOptions{Off: off}, func(w *cutWorld) {
			denied = w.openAll(7000, flowsOf{{"dev/web", "dev/db"}}...)
			wrongly = w.openAll(7000, flowsOf{{"dev/db", "dev/web"}}...)
			w.SetPolicy(map[string]string{"dev/p": denyDB})
			w.label(wrongly)
			if off {
				w.label(denied)
			}
		})
		for _, c := range wrongly {
			w.eventually(c.what+" is given back", func() bool { return !c.isCut() })
			c.lives()
		}
		for _, c := range denied {
			if off {
				w.eventually(c.what+" is given back", func() bool { return !c.isCut() })
				c.lives()
				continue
			}
			c.awaitCut()
			c.dead(c.client, c.server)
		}
	}
}

// label marks connections as cut.
func (w *cutWorld) label(connections []*connection) {
	w.T.Helper()
	for _, c := range connections {
		found := w.entries(func(e *conntrack.Entry) bool {
			return e.Orig.SrcPort == c.source.Port() && e.Orig.Src == c.source.Addr()
		})
		err := w.Node.Do(func() error {
			table, err := conntrack.Open()
			if err != nil {
				return err
			}
			defer table.Close()
			for i := range found {
				err = errors.Join(err, table.SetLabel(&found[i], packetworld.CutBit, true))
			}
			return err
		})
		if err != nil || len(found) != 1 || !c.isCut() {
			w.T.Fatalf("%s: %v, %v", c.what, found, err)
		}
	}
}

// TestNotCutWhenOff: connections go on where the agent isn't to cut them.
func TestNotCutWhenOff(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{Off: true}, nil)
	all := w.openAll(7000, flowsOf{{"dev/web", "dev/db"}}...)
	w.policies(map[string]string{"dev/p": denyDB})
	w.Denied("dev/web > dev/db tcp/80") // control: it is in force, and time has passed
	for _, c := range all {
		c.lives()
		if c.isCut() {
			t.Errorf("%s is cut", c.what)
		}
	}
}

// TestSecondLook: what comes into being while a commit is under way is seen by the second look, if
// the first one was too early.
func TestSecondLook(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{}, CutterOptions{}, nil)
	first := w.open(policy.ProtocolUDP, "dev/web", "dev/db", 4, w.freePort(7000), netip.AddrPort{})
	w.policies(map[string]string{"dev/p": denyDB})
	first.awaitCut()
	late := testnet.Plain(policy.ProtocolUDP, w.Addr("dev/web", 4).String()+":7",
		w.Addr("dev/db", 4).String()+":9")
	if err := w.Node.Do(func() error { return testnet.Track(late) }); err != nil {
		t.Fatal(err)
	}
	w.eventually("the late one is cut", func() bool {
		return len(w.entries(func(e *conntrack.Entry) bool {
			return e.Orig.SrcPort == 7 && e.Labels.Has(packetworld.CutBit)
		})) == 1
	})
}

// TestResetsPassOutput: a reset is sent in the name of the connection's other end, so it begins on
// output with a source that isn't local. Where output is judged for IPVS, it passes all the same.
func TestResetsPassOutput(t *testing.T) {
	t.Parallel()
	w := newCutWorld(t, ruleset.Config{IPVS: true}, CutterOptions{}, nil)
	all := w.openAll(7000, flowsOf{{"dev/web", "dev/db"}, {"out", "dev/db"}}...)
	w.policies(map[string]string{"dev/p": `{podSelector: {}, policyTypes: [Ingress, Egress]}`})
	for _, c := range all {
		c.awaitCut()
		c.dead(c.client, c.server)
		c.dead(c.server, c.client)
	}
}

// TestCommitsDontWaitForSweeps: a look that takes for ever holds nothing up.
func TestCommitsDontWaitForSweeps(t *testing.T) {
	t.Parallel()
	e, _, run := newEnforcer(t)
	ctx, cancel := context.WithCancel(context.Background())
	stuck, done := make(chan struct{}), make(chan error)
	c := NewCutter(e, CutterOptions{do: func(func() error) error {
		close(stuck)
		<-ctx.Done()
		return nil
	}})
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	a := testAttachment()
	e.Adopt([]cni.Attachment{a})
	e.Update(func(c *Model) { c.SetPod(testPod()) })
	run()
	select {
	case <-stuck:
	case <-time.After(cutPatience):
		t.Fatal("the first commit isn't looked after")
	}
	within, stop := inTime(cutPatience)
	defer stop()
	if err := e.Detach(within, a.ID()); err != nil {
		t.Error(err)
	}
}
