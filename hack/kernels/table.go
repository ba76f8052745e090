package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// table is the reports as Markdown: a line for each kernel and suite, then what was skipped and
// why, then the figures that tests logged.
func table(reports []*Report) string {
	var s strings.Builder
	s.WriteString(
		"| Kernel | What ran | Passed | Failed | Skipped | Took |\n|---|---|---|---|---|---|\n")
	for _, r := range reports {
		fmt.Fprintf(&s, "| **%s** (Debian's %s, %s) | up after %d s | | | | %s of machines |\n",
			r.Kernel.Release,
			r.Kernel.Suite, r.Kernel.Package, r.Boot, r.Total.Round(time.Second))
		for _, result := range r.Results {
			failed := fmt.Sprint(len(result.Tests.Failed))
			if len(result.Tests.Failed) > 0 {
				failed += ": `" + strings.Join(result.Tests.Failed, "`, `") + "`"
			} else if !result.OK() {
				failed = "didn't end"
			}
			fmt.Fprintf(&s, "| | %s | %d | %s | %d | %d s |\n", result.Suite,
				len(result.Tests.Passed), failed,
				len(result.Tests.Skipped), result.Seconds)
		}
	}
	writeReasons(&s, reports)
	writeFigures(&s, reports)
	return s.String()
}

// writeReasons lists why tests, or parts of them, were skipped: each reason once.
func writeReasons(s *strings.Builder, reports []*Report) {
	type place struct{ reason, test string }
	where := map[place][]string{}
	for _, r := range reports {
		for _, result := range r.Results {
			for test, reason := range result.Tests.Skipped {
				p := place{reason, result.Suite + " `" + test + "`"}
				where[p] = append(where[p], r.Kernel.Suite)
			}
		}
	}
	if len(where) == 0 {
		return
	}
	s.WriteString("\nSkipped:\n\n")
	order := slices.SortedFunc(maps.Keys(where), func(a, b place) int {
		return strings.Compare(a.reason+"\x00"+a.test, b.reason+"\x00"+b.test)
	})
	for _, p := range order {
		fmt.Fprintf(s, "- %s: %s (%s)\n", p.test, p.reason, strings.Join(where[p], ", "))
	}
}

// writeFigures lists the figures by kernel.
func writeFigures(s *strings.Builder, reports []*Report) {
	for _, r := range reports {
		var lines []string
		for _, result := range r.Results {
			for _, figure := range result.Tests.Figures {
				lines = append(lines, fmt.Sprintf("- %s: %s\n", result.Suite, figure))
			}
		}
		if len(lines) > 0 {
			fmt.Fprintf(s, "\nFigures on %s:\n\n%s", r.Kernel.Release, strings.Join(lines, ""))
		}
	}
}

// Marks in a document, between which the table stands.
const (
	tableBegin = "<!-- runs: written by make kernels -->\n"
	tableEnd   = "<!-- end of runs -->\n"
)

// insert returns the document with text in the place of what stands between its marks.
func insert(document, text string) (string, error) {
	before, rest, ok := strings.Cut(document, tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return "", fmt.Errorf("it has no lines %q and %q", tableBegin, tableEnd)
	}
	return before + tableBegin + "\n" + strings.TrimSpace(text) + "\n\n" + tableEnd + after, nil
}
