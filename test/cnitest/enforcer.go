package cnitest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-net/sluice/cni"
)

// Enforcer remembers what it was asked. It is a fake of the agent, not of the kernel: it decides
// nothing.
type Enforcer struct {
	mu       sync.Mutex
	onAttach func(context.Context, cni.Attachment) error // may be nil
	onDetach func(id string) error                       // may be nil
	attached map[string]cni.Attachment
	calls    []string
}

// Attach implements server.Enforcer.
func (f *Enforcer) Attach(ctx context.Context, a cni.Attachment) error {
	onAttach, _ := f.note("attach " + a.ID())
	if onAttach != nil {
		if err := onAttach(ctx, a); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attached == nil {
		f.attached = map[string]cni.Attachment{}
	}
	f.attached[a.ID()] = a
	return nil
}

// Detach implements server.Enforcer.
func (f *Enforcer) Detach(_ context.Context, id string) error {
	_, onDetach := f.note("detach " + id)
	if onDetach != nil {
		if err := onDetach(id); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attached, id)
	return nil
}

// Enforced implements server.Enforcer.
func (f *Enforcer) Enforced(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.attached[id]; !ok {
		return errors.New("isn't in the kernel")
	}
	return nil
}

func (f *Enforcer) note(
	call string,
) (onAttach func(context.Context, cni.Attachment) error, onDetach func(id string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	return f.onAttach, f.onDetach
}

// SetAttach has Attach call a function first, whose error is its own.
func (f *Enforcer) SetAttach(do func(context.Context, cni.Attachment) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onAttach = do
}

// SetDetach has Detach call a function first, whose error is its own.
func (f *Enforcer) SetDetach(do func(id string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onDetach = do
}

// Forget is what the enforcement of an agent that was killed knows.
func (f *Enforcer) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached = nil
}

// IDs are those of what is attached, sorted.
func (f *Enforcer) IDs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.attached))
}

// CallText is all that it was asked, in a line.
func (f *Enforcer) CallText() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, ", ")
}
