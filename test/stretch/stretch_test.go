package stretch

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestBy: the factor of the environment counts, and what isn't one is refused by name. The factor
// is read once in a process, so that each case is one.
func TestBy(t *testing.T) {
	if os.Getenv("STRETCH_TEST") != "" {
		fmt.Printf("two seconds are %s, 60 times are %d\n", By(2*time.Second), Fewer(60))
		return
	}
	t.Parallel()
	for factor, want := range map[string]string{
		"": "are 2s, 60 times are 60\n", "1": "are 2s, 60 times are 60\n",
		"10": "are 20s, 60 times are 6\n", "100": "are 3m20s, 60 times are 1\n",
		"0":   `SLUICE_STRETCH is "0"`,
		"1.5": `SLUICE_STRETCH is "1.5"`, "much": `it has to be a whole number of 1 or more`,
	} {
		self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBy$")
		self.Env = append(os.Environ(), "STRETCH_TEST=1", Variable+"="+factor)
		if out, _ := self.CombinedOutput(); !strings.Contains(string(out), want) {
			t.Errorf("factor %q: got %q, want %q", factor, out, want)
		}
	}
}
