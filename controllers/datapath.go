package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/cni/install"
	"github.com/sluice-net/sluice/cni/server"
	"github.com/sluice-net/sluice/controllers/notify"
	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/overlay"
)

// Datapath reports the state of the node's network to the CNI server, whose pods need it, and
// writes the files that the container runtime and other tools read. It keeps these files as they
// should be.
type Datapath struct {
	Enforcer   *enforcer.Enforcer
	Server     *server.Server
	PolicyOnly bool // another plugin makes the network: no files
	Masquerade bool
	Forwarding *ForwardingCheck

	ReserveTunnel bool // no pod gets the tunnel's port as a host port

	ConfDir    string                  // of CNI configurations; empty: none
	Conflist   install.ConflistOptions // what stands there
	SubnetFile string                  // flannel's subnet.env; empty: none
	RunDir     string                  // of NetworkManager and systemd-networkd; empty: none
	Events     notify.NodeEvents
	Log        logr.Logger

	mu        sync.Mutex
	committed bool
	state     NetworkState

	changes chan struct{} // of state; made by signal

	// Of Run's goroutine, which alone writes files: the others never wait for a disk.
	failed    map[string]string // by what failed, so that it is reported once
	installed bool              // our configuration was in place at least once
	appended  []string          // plugins that others appended to it
	warnedOf  []string          // configurations that come before ours
}

// SetState takes in what came of the network's last pass.
func (d *Datapath) SetState(s NetworkState) {
	d.mu.Lock()
	d.state = s
	d.mu.Unlock()
	d.Server.SetOwnPodCIDRs(s.PodCIDRs)
	if s.Ready {
		d.Server.SetPodCIDRs(s.PodCIDRs)
		d.Server.SetMTU(s.MTU)
	}
	if d.ReserveTunnel {
		port := s.Config.Port
		if s.Config.Backend != overlay.VXLAN {
			port = 0
		}
		d.Server.SetTunnelPort(port)
	}
	d.Forwarding.SetPods(networksOf(s.Config), s.PodCIDRs)
	d.updateServer()
	select {
	case d.changed() <- struct{}{}:
	default: // Run is about to look
	}
}

// changed holds a token while there is a new state for Run.
func (d *Datapath) changed() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changes == nil {
		d.changes = make(chan struct{}, 1)
	}
	return d.changes
}

// updateServer reports to the CNI server whether the node can take pods.
func (d *Datapath) updateServer() {
	ready, reason := d.ready()
	d.Server.SetDatapathReady(ready, reason)
}

func (d *Datapath) ready() (bool, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.committed:
		if err := d.Enforcer.Ready(); err != nil {
			return false, err.Error()
		}
		return false, "the ruleset has only just been written"
	case !d.PolicyOnly && !d.state.Ready:
		return false, "the pod network isn't ready: " + d.state.Reason
	}
	return true, ""
}

// Run keeps the files until ctx ends, and leaves them.
func (d *Datapath) Run(ctx context.Context) error {
	d.updateServer() // what it waits for
	if err := d.Enforcer.AwaitFirstCommit(ctx); err != nil {
		return nil // the agent ends
	}
	lookAgain := 10 * time.Second
	if d.Forwarding.Accept {
		lookAgain = 2 * time.Second // others rewrite their tables as a whole
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		d.Forwarding.look(ctx) // before pods can come, whose addresses it might try
		d.setCommitted()
		d.keepFiles()
		if !d.awaitTick(ctx, tick.C) {
			return nil
		}
	}
}

// awaitTick keeps up with the state until the next tick, or returns false when ctx ends.
func (d *Datapath) awaitTick(ctx context.Context, tick <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case <-d.changed():
			d.keepFiles()
		}
	}
}

func (d *Datapath) setCommitted() {
	d.mu.Lock()
	was := d.committed
	d.committed = true
	d.mu.Unlock()
	if !was {
		d.updateServer()
	}
}

func (d *Datapath) keepFiles() {
	if d.PolicyOnly {
		return
	}
	d.writeSubnet()
	if d.RunDir != "" {
		_, err := install.DropIns(d.RunDir)
		d.note("Other network managers may take hold of the pods' links", err)
	}
	// The configuration makes the runtime call us, so it comes last. It stays: without it the node
	// isn't ready.
	if ready, _ := d.ready(); ready && d.ConfDir != "" {
		state, err := install.Conflist(d.ConfDir, d.Conflist)
		d.note("The CNI configuration can't be written", err)
		if state.Changed {
			d.Log.Info("Wrote the CNI configuration", "directory", d.ConfDir)
		}
		if err == nil {
			d.reportConflist(state)
		}
	}
}

func (d *Datapath) writeSubnet() {
	d.mu.Lock()
	state := d.state
	d.mu.Unlock()
	if d.SubnetFile == "" || !state.Ready {
		return
	}
	env := overlay.SubnetEnv{
		Network: state.Config.Network, IPv6Network: state.Config.IPv6Network, MTU: state.MTU,
		Masquerade: d.Masquerade,
	}
	for _, p := range state.PodCIDRs {
		if p.Addr().Is4() {
			env.Subnet = p
		} else {
			env.IPv6Subnet = p
		}
	}
	d.note("The subnet file can't be written", env.WriteFile(d.SubnetFile))
}

// reportConflist reports what others do to our configuration and beside it. What was there at the
// agent's first look is an earlier agent's, perhaps with other flags, and no edit.
func (d *Datapath) reportConflist(s install.ConflistState) {
	if d.installed && s.Edited != "" {
		d.Log.Info("Another program has edited our CNI configuration; it is put right", "directory",
			d.ConfDir, "edited", s.Edited)
		d.Events.Warn("CNIConfigEdited",
			"another program has edited our CNI configuration in "+d.ConfDir+
				", and it is put right: "+s.Edited)
	}
	if !slices.Equal(s.Appended, d.appended) {
		d.Log.Info("The plugins have changed that others append to our CNI configuration",
			"directory", d.ConfDir, "plugins", s.Appended)
		d.Events.Say("CNIPluginsAppended",
			fmt.Sprintf("plugins that others have appended to our CNI configuration in %s, in "+
				"this order: %s", d.ConfDir, cmp.Or(strings.Join(s.Appended, ", "), "none")))
	}
	d.installed, d.appended = true, s.Appended
	d.warn(s.Before)
}

// warn says that the runtime takes another network's configuration, when that begins.
func (d *Datapath) warn(before []string) {
	if slices.Equal(before, d.warnedOf) {
		return
	}
	d.warnedOf = before
	if len(before) == 0 {
		return
	}
	d.Log.Info("Other CNI configurations come before ours: the container runtime takes the first",
		"directory", d.ConfDir, "before", before)
	d.Events.Warn("OtherCNIFirst", "CNI configurations come before ours in "+d.ConfDir+
		", and the container runtime takes the first: "+strings.Join(before, ", "))
}

// note reports an error when it begins, when it changes, and when it is over.
func (d *Datapath) note(what string, err error) {
	if d.failed == nil {
		d.failed = map[string]string{}
	}
	was := d.failed[what]
	switch {
	case err == nil && was != "":
		delete(d.failed, what)
		d.Log.Info("A file of the node is written again", "was", was)
		d.Events.Say("NodeFileWritten", "it is written again; it was: "+was)
	case err != nil && was != err.Error():
		d.failed[what] = err.Error()
		d.Log.Error(err, what)
		d.Events.Warn("NodeFileNotWritten", what+", what is there stays as it is: "+err.Error())
	}
}
