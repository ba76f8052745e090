package assets

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// linkShare: for each program a twelfth of all comes on top, since the last packages wait for each
// other, and then it is linked.
const linkShare = 12

// buildProgress reports how far a go build is. It asks which packages have to be compiled only
// after a while: so a cached build doesn't wait for that. Its methods may be called concurrently.
type buildProgress struct {
	programs int // that are linked in the end

	mu      sync.Mutex
	started map[string]bool // packages
	// of those that weren't compiled when it was asked, in bytes of their source; nil: not asked
	// yet
	sizes  map[string]int
	before int // how many were, when it was asked
	asked  time.Time
}

// Write takes what go build -v prints: a line for each package that it begins with.
func (p *buildProgress) Write(output []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started == nil {
		p.started = map[string]bool{}
	}
	for line := range strings.Lines(string(output)) {
		p.started[strings.TrimSpace(line)] = true
	}
	return len(output), nil
}

// expect says which packages are left, with their sizes.
func (p *buildProgress) expect(sizes map[string]int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes, p.asked, p.before = sizes, now, 0
	for name := range p.started {
		if _, left := sizes[name]; !left {
			p.before++
		}
	}
}

// text is how far the build is and, once that is known, the time left: for the rest of the source
// at the pace so far.
func (p *buildProgress) text(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sizes == nil {
		return ""
	}
	n, done, all := 0, 0, 0
	for name, size := range p.sizes {
		all += size
		if p.started[name] {
			n++
			done += size
		}
	}
	text := fmt.Sprintf(", %d of %d packages", p.before+n, p.before+len(p.sizes))
	const enough = 20 // of a hundred: what comes first is small
	switch {
	case n == len(p.sizes):
		text += ", linking"
	case done*100 >= all*enough:
		linking := all * p.programs / linkShare
		left := now.Sub(p.asked).Seconds() / float64(done) * float64(all-done+linking)
		text += fmt.Sprintf(", some %s left",
			(time.Duration(left) * time.Second).Round(time.Second))
	}
	return text
}

// left lists the packages that the build has to compile, with the bytes of their source.
func (b goBuild) left(ctx context.Context) (map[string]int, error) {
	const format = `{{if .Stale}}{{.ImportPath}}{{"\t"}}{{.Dir}}` +
		`{{range .GoFiles}}{{"\t"}}{{.}}{{end}}{{end}}`
	args := append([]string{"list", "-deps", "-trimpath", "-ldflags", b.ldflags, "-f", format},
		b.packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = b.module, b.env()
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing what is to be built: %w", err)
	}
	sizes := map[string]int{}
	for line := range strings.Lines(string(output)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) < 2 {
			continue
		}
		sizes[fields[0]] = 1
		for _, file := range fields[2:] {
			if info, err := os.Stat(filepath.Join(fields[1], file)); err == nil {
				sizes[fields[0]] += int(info.Size())
			}
		}
	}
	return sizes, nil
}
