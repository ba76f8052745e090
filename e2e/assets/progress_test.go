package assets

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestProgress: a build that goes on at one pace says how many packages it has begun with, of how
// many, and a time that is true within a factor of two.
func TestProgress(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes, order, all := map[string]int{}, []string{}, 0
		for i, size := range rapid.SliceOfN(rapid.IntRange(1, 100_000), 200, 400).Draw(t, "sizes") {
			name := fmt.Sprintf("example.com/p%d", i)
			sizes[name], order, all = size, append(order, name), all+size
		}
		const total = 100 * time.Second
		var p buildProgress
		start := time.Unix(0, 0)
		now := func(done int) time.Time {
			return start.Add(time.Duration(float64(total) * float64(done) / float64(all)))
		}
		_, _ = p.Write([]byte("unsafe\n")) // before anybody has asked
		if text := p.text(start); text != "" {
			t.Errorf("nothing is known, but %q", text)
		}
		p.expect(sizes, start)
		done := 0
		for i, name := range order {
			_, _ = p.Write([]byte(name + "\n"))
			done += sizes[name]
			text := p.text(now(done))
			want := fmt.Sprintf(", %d of %d packages", i+2, len(order)+1)
			if !strings.HasPrefix(text, want) {
				t.Fatalf("%q, want %q", text, want)
			}
			left := total - now(done).Sub(start)
			found := regexp.MustCompile(`some (.*) left`).FindStringSubmatch(text)
			switch {
			case i == len(order)-1:
				if !strings.HasSuffix(text, ", linking") {
					t.Fatalf("at the end: %q", text)
				}
			case found == nil && left < total/2:
				t.Fatalf("with %s left no time is said: %q", left, text)
			case found != nil && left > 2*time.Second:
				said, err := time.ParseDuration(found[1])
				ratio := said.Seconds() / left.Seconds()
				if err != nil || ratio < 0.5 || ratio > 2 {
					t.Fatalf("%s are left, but %q (%s)", left, text,
						strconv.FormatFloat(ratio, 'f', 2, 64))
				}
			}
		}
	})
}
