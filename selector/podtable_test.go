package selector

import (
	"reflect"
	"testing"
)

// A block of pods is just below a size that Go's memory comes in.
func TestBlocksAreFull(t *testing.T) {
	t.Parallel()
	const added, most = 8, 4 << 10 // bytes, by Go to what it allocates
	block, one := reflect.TypeFor[podBlock]().Size(), reflect.TypeFor[pod]().Size()
	if block+added > most || block+added+one <= most {
		t.Errorf("a block has %d bytes, %d for each pod", block, one)
	}
}
