package enforcer

import (
	"errors"
	"fmt"
)

// hold keeps pods from starting while there may be policies that the model doesn't have.
type hold struct {
	why        error  // nil: nothing holds
	completeAt uint64 // the update by which the model had all policies
}

// reason is why a pod may not start when the kernel has so many updates, but for rules that have to
// wait, nil if it may. What waits allows nothing until then.
func (h *hold) reason(isolated uint64) error {
	switch {
	case h.why != nil:
		return fmt.Errorf("not all policies are known: %w", h.why)
	case isolated < h.completeAt:
		return errors.New("not all policies are in the kernel yet")
	}
	return nil
}

// HoldPods has Attach wait from now on, as there may be policies that the model doesn't have.
// Attachments that were put under policy before go on.
func (e *Enforcer) HoldPods(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hold.why = why
}

// ReleasePods ends that: the model has all policies by now. Attach goes on once the kernel has them
// too.
func (e *Enforcer) ReleasePods() {
	e.Update(func(*Model) {
		if e.hold.why != nil {
			e.hold = hold{completeAt: e.updates + 1}
		}
	})
}
