package bench

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sluice-net/sluice/test/stretch"
)

// long is whether there is time for exact figures.
var long = os.Getenv("SLUICE_LONG") != ""

// column is what one variant gave, a figure for each round.
type column struct {
	name    string
	figures []float64
}

// interleave measures every variant once in each round. Each round begins with another one, so that
// none always has the same predecessor in its caches.
func interleave(b *testing.B, rounds int, names []string,
	measure func(variant int) (float64, error)) []column {
	b.Helper()
	columns := make([]column, len(names))
	for i, name := range names {
		columns[i].name = name
	}
	for round := range rounds {
		for i := range names {
			variant := (i + round) % len(names)
			figure, err := measure(variant)
			if err != nil {
				b.Fatalf("%s: %v", names[variant], err)
			}
			columns[variant].figures = append(columns[variant].figures, figure)
		}
	}
	return columns
}

// ratios divides round by round.
func (c column) ratios(reference column) []float64 {
	out := make([]float64, len(c.figures))
	for i := range out {
		out[i] = c.figures[i] / reference.figures[i]
	}
	return out
}

func median(figures []float64) float64 { return quantile(figures, 0.5) }

// quantile is a figure that the share q of all don't exceed. Of fewer than 100, the 99th percentile
// is the highest.
func quantile(figures []float64, q float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(figures))
	i := int(q * float64(len(sorted)))
	return sorted[min(i, len(sorted)-1)]
}

// report makes a sub-benchmark of figures that are there already.
func report(b *testing.B, name string, metrics map[string]float64) {
	b.Helper()
	b.Run(name, func(b *testing.B) {
		for unit, figure := range metrics {
			b.ReportMetric(figure, unit)
		}
		b.ReportMetric(0, "ns/op") // left out, then
	})
}

// patience is how long to wait for what must happen.
var patience = stretch.By(20 * time.Second)

// await polls until check has no error.
func await(b *testing.B, what string, check func() error) {
	b.Helper()
	within(b, patience, what, check)
}

// within is await with a limit of its own.
func within(b testing.TB, limit time.Duration, what string, check func() error) {
	b.Helper()
	poll(b, 5*time.Millisecond, limit, what, check)
}

// poll is within, with a pause of its own between checks.
func poll(b testing.TB, every, limit time.Duration, what string, check func() error) {
	b.Helper()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("no %s within %s: %v", what, limit, err)
		}
	}
}
