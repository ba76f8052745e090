package enforcer

import (
	"errors"
	"testing"
)

// TestHoldReason: pods wait for the policies to be known, and then for the kernel to have them.
func TestHoldReason(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hold hold
		done uint64
		want string
	}{
		{hold{}, 0, ""},
		{hold{why: errors.New("no list")}, 9, "not all policies are known: no list"},
		{hold{completeAt: 7}, 6, "not all policies are in the kernel yet"},
		{hold{completeAt: 7}, 7, ""},
	} {
		switch err := c.hold.reason(c.done); {
		case err == nil && c.want != "", err != nil && err.Error() != c.want:
			t.Errorf("%+v at %d: %v, expected %q", c.hold, c.done, err, c.want)
		}
	}
}
