package kernels

import "testing"

// TestNeeded: an agent without a pod network needs no address translation.
func TestNeeded(t *testing.T) {
	t.Parallel()
	for _, f := range Needed(true) {
		if f.Name == Translation {
			t.Errorf("with --policy-only, %s is needed", f.Name)
		}
	}
	if all := Needed(false); len(all) != len(Features()) {
		t.Errorf("needed are %v only", all)
	}
}
