package link

import (
	"errors"
	"fmt"
)

// Apply makes changes in order. After a failure the rest of the same group is left out; everything
// else goes on. The first errors are joined. Removing what isn't there is no error. With turn, each
// change is made through it: turn calls the function, or is false, and then the rest isn't wanted
// any more.
func (k *Kernel) Apply(ops []Op, turn func(Op, func()) bool) error {
	var errs []error
	failed := map[string]bool{}
	for _, op := range ops {
		if op.Group != "" && failed[op.Group] {
			continue
		}
		change := func() {
			if err := k.ApplyOne(op); err != nil {
				errs = append(errs, err)
				failed[op.Group] = true
			}
		}
		if turn == nil {
			change()
		} else if !turn(op, change) {
			break
		}
	}
	const enough = 5 // to see what is wrong
	if more := len(errs) - enough; more > 0 {
		errs = append(errs[:enough], fmt.Errorf("and %d more failed", more))
	}
	return errors.Join(errs...)
}

// ApplyOne makes one change. Its error names the change.
func (k *Kernel) ApplyOne(op Op) error {
	if op.Next == nil || len(op.Now) > 1 {
		for _, item := range op.Now {
			if err := item.Drop(k); err != nil && !IsGone(err) {
				return fmt.Errorf("%s: %w", op, err)
			}
		}
	}
	if op.Next == nil {
		return nil
	}
	if err := op.Next.Put(k, op.Now); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}
