package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Reboot does to the node what a power cut does: its agent, pods and plugins die, and all is gone that its kernel knew, or that was on
// tmpfs: the agent's state and SubnetFile. The CNI configuration, libcni's cache and the node's address and MAC stay. It
// returns when the agent was started again; the runner starts the pods again, each after a CNI DEL of what it was.
func (n *Node) Reboot() error {
	n.lab.changing.Lock()
	defer n.lab.changing.Unlock()
	n.runner.power.off(n.runner.killPods)
	defer n.runner.power.on()
	n.runner.network.set("the node was rebooted")
	err := n.powerOff()
	for _, dir := range []string{nodeSluiceDir, nodeRunDir} {
		dir = filepath.Join(n.dir, dir)
		err = errors.Join(err, os.RemoveAll(dir), os.Mkdir(dir, 0o700))
	}
	if err == nil {
		err = n.powerOn()
	}
	if err == nil && n.lab.options.NoAgent {
		for _, other := range n.lab.nodeStates() {
			err = errors.Join(err, n.lab.routePods(other))
		}
	} else if err == nil {
		err = n.StartAgent()
	}
	if err != nil {
		return fmt.Errorf("rebooting %s: %w", n.name, err)
	}
	return nil
}

// power says whether a node is on, for those who do something that ends when it goes off.
type power struct {
	using sync.RWMutex // by those who do something; written while off

	mu  sync.Mutex
	ctx context.Context // ends when the node goes off
	cut context.CancelFunc
}

func newPower() *power {
	p := &power{}
	p.ctx, p.cut = context.WithCancel(context.Background())
	return p
}

// use waits until the node is on. The context that it returns ends with ctx, or when the node goes off, which then waits for done.
// Uses must not nest.
func (p *power) use(ctx context.Context) (while context.Context, done func()) {
	p.using.RLock()
	while, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.current(), cancel)
	return while, func() {
		stop()
		cancel()
		p.using.RUnlock()
	}
}

// current is a context that ends when the node goes off.
func (p *power) current() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx
}

// off ends what is being done, waits for it, and then calls kill. Each off needs an on after it.
func (p *power) off(kill func()) {
	p.mu.Lock()
	p.cut()
	p.mu.Unlock()
	p.using.Lock()
	kill()
}

func (p *power) on() {
	p.mu.Lock()
	p.ctx, p.cut = context.WithCancel(context.Background())
	p.mu.Unlock()
	p.using.Unlock()
}
