package server

import (
	"context"
	"sync"
)

// locks is a lock for each of any number of names.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when given back
}

// lock waits for the lock of a name, no longer than ctx lasts, and returns what gives it back.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		unlock, held := l.tryLock(name)
		if unlock != nil {
			return unlock, nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// tryLock returns what gives the lock back, or else a channel that is closed when its holder does.
func (l *locks) tryLock(name string) (unlock func(), held <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, ok := l.held[name]; ok {
		return nil, held
	}
	if l.held == nil {
		l.held = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	l.held[name] = mine
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, name)
		close(mine)
	}, nil
}
