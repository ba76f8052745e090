package framework

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
)

// nodeDumps is how many failures of one process have the agents and nodes dumped: a cluster that
// doesn't work fails every spec.
const nodeDumps = 5

// How much of a section's end the report has: where a folder has the whole of it, and where nothing
// else has.
const (
	besideFiles = 4_000
	withoutFile = 20_000
)

// section is a part of the diagnostics. What couldn't be read is said in its text.
type section struct{ name, text string }

// diagnose writes what the cluster looks like: to the spec's report, and as files to a folder of
// SLUICE_E2E_ARTIFACTS.
func (c *TheCluster) diagnose(ctx context.Context) {
	var sections []section
	for _, namespace := range c.tracked() {
		sections = append(sections, c.namespaceSections(ctx, namespace)...)
	}
	c.mu.Lock()
	c.dumps++
	withNodes := c.dumps <= nodeDumps
	c.mu.Unlock()
	if withNodes {
		sections = append(sections, c.agentSections(ctx)...)
		sections = append(sections, c.nodeSections(ctx)...)
	} else {
		sections = append(sections,
			section{"nodes", fmt.Sprintf("not dumped: %d specs before failed too", c.dumps-1)})
	}
	folder, err := writeSections(sections, ginkgo.CurrentSpecReport().FullText())
	if err != nil {
		sections = append(sections, section{"files", "couldn't be written: " + err.Error()})
	}
	ginkgo.AddReportEntry("diagnostics", render(sections, folder),
		ginkgo.ReportEntryVisibilityFailureOrVerbose)
}

// render is what the report has of the sections. The folder that has the whole of them is named, if
// there is one.
func render(sections []section, folder string) string {
	limit := withoutFile
	if folder != "" {
		limit = besideFiles
	}
	var report strings.Builder
	for _, s := range sections {
		text := strings.TrimRight(s.text, "\n")
		if len(text) > limit {
			text = "[...]\n" + text[len(text)-limit:]
		}
		fmt.Fprintf(&report, "=== %s\n%s\n", s.name, text)
	}
	if folder != "" {
		fmt.Fprintf(&report, "=== whole in %s\n", folder)
	}
	return report.String()
}

var unfitForFiles = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// writeSections writes a file for each section and returns the folder, which is the spec's. Without
// SLUICE_E2E_ARTIFACTS it is "".
func writeSections(sections []section, spec string) (string, error) {
	parent := os.Getenv("SLUICE_E2E_ARTIFACTS")
	if parent == "" {
		return "", nil
	}
	folder := filepath.Join(parent,
		fmt.Sprintf("%.120s-%s", fileName(spec), time.Now().UTC().Format("150405.000")))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	for _, s := range sections {
		file := filepath.Join(folder, fileName(s.name)+".txt")
		if err := os.WriteFile(file, []byte(s.text), 0o644); err != nil {
			return folder, err
		}
	}
	return folder, nil
}

func fileName(text string) string {
	return strings.Trim(unfitForFiles.ReplaceAllString(text, "-"), "-")
}
