package kubelet

import (
	"context"
	"sync"
)

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

// use waits until the node is on. The context that it returns ends with ctx, or when the node goes
// off, which then waits for done. Uses must not nest.
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
