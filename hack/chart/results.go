package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// results are the medians of figures: by benchmark, then by its sub-benchmarks in the order of the
// input, then by unit.
type results map[string][]line

type line struct {
	name    string // of the sub-benchmark
	figures map[string]float64
}

// get is the figure of a sub-benchmark; ok is false where there is none.
func (r results) get(benchmark, name, unit string) (value float64, ok bool) {
	for _, l := range r[benchmark] {
		if l.name == name {
			value, ok = l.figures[unit]
		}
	}
	return value, ok
}

// processors ends the name of a benchmark on machines with more than one.
var processors = regexp.MustCompile(`-\d+$`)

// parse reads the output of go test -bench.
func parse(in io.Reader) (results, error) {
	all := map[string]map[string][]float64{} // by full name and unit
	var order []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || len(fields)%2 != 0 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(fields[0], "")
		if all[name] == nil {
			all[name] = map[string][]float64{}
			order = append(order, name)
		}
		for i := 2; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %q: expected a number before %q", fields[0],
					fields[i], fields[i+1])
			}
			all[name][fields[i+1]] = append(all[name][fields[i+1]], value)
		}
	}
	out := results{}
	for _, name := range order {
		benchmark, sub, _ := strings.Cut(name, "/")
		l := line{sub, map[string]float64{}}
		for unit, values := range all[name] {
			slices.Sort(values)
			l.figures[unit] = values[len(values)/2]
		}
		out[benchmark] = append(out[benchmark], l)
	}
	return out, lines.Err()
}
