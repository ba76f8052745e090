package ruleset

import (
	"testing"

	"pgregory.net/rapid"
)

// TestSampleLimit: within any second both directions together keep to the limit. The kernel's
// bucket holds burst tokens and gains one at the end of each 1/rate seconds
// (net/netfilter/nft_limit.c).
func TestSampleLimit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.Uint64Range(2, maxUsefulRate).Draw(t, "perSecond")
		rate, burst := sampleLimit(perSecond)
		if rate == 0 || burst == 0 {
			t.Fatalf("%d a second: %d with a burst of %d lets nothing pass", perSecond, rate, burst)
		}
		if most := uint64(burst) + rate - 1; 2*most > perSecond || 2*most < perSecond-1 {
			t.Fatalf("%d a second: %d with a burst of %d are %d a direction", perSecond, rate,
				burst, most)
		}
	})
}

const maxUsefulRate = 1000
