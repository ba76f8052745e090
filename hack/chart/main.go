// Command chart draws the charts of docs/performance.md from what benchmarks printed:
//
//	SLUICE_LONG=1 make bench BENCH='Network|Path|Plugin|Fanout' CHARTS=docs/performance
//	SLUICE_LONG=1 make bench-peers CHARTS=docs/performance
//
// It writes an SVG for each chart whose benchmarks are in its input, and leaves the others alone.
// Of several figures of one benchmark and unit, the median counts.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -bench … | chart FOLDER")
		os.Exit(2)
	}
	if err := run(os.Stdin, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, folder string) error {
	results, err := parse(in)
	if err != nil {
		return fmt.Errorf("reading results: %w", err)
	}
	drawn := 0
	for _, c := range charts() {
		groups := c.groups(results)
		if len(groups) == 0 {
			continue
		}
		file := filepath.Join(folder, c.file)
		//nolint:gosec // a page that everybody may read
		if err := os.WriteFile(file, []byte(draw(c, groups)), 0o644); err != nil {
			return fmt.Errorf("writing a chart: %w", err)
		}
		fmt.Println(file)
		drawn++
	}
	if drawn == 0 {
		return fmt.Errorf("the input has none of the benchmarks that charts are made of")
	}
	return nil
}
