package assets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path/filepath"
)

// Programs is the paths of what is built from this repository for a lab.
type Programs struct {
	Agent   string // sluice-agent
	Plugins string // folder of the CNI plugins
	Pod     string // what runs in a pod
}

// Wiring builds this repository's programs. With stock, these are the pod's alone, and for plugins there are ptp and
// host-local of the CNI project.
func Wiring(ctx context.Context, progress io.Writer, stock bool) (Programs, error) {
	repo, err := findRepository()
	if err != nil {
		return Programs{}, err
	}
	cache, unlock, err := lockedCache(ctx, progress)
	if err != nil {
		return Programs{}, err
	}
	defer unlock()
	// One clone doesn't run what another built.
	sum := sha256.Sum256([]byte(repo))
	dir := filepath.Join(cache, "bin-"+hex.EncodeToString(sum[:])[:12])
	builds := []goBuild{{
		what:     "the program of pods",
		module:   repo.file("e2e"),
		packages: []string{"./cmd/labpod"},
		output:   dir + "/",
	}}
	if stock {
		const plugins = "github.com/containernetworking/plugins/plugins/"
		builds = append(builds, goBuild{
			what:     "the stock CNI plugins",
			module:   repo.file("e2e"),
			packages: []string{plugins + "main/ptp", plugins + "ipam/host-local"},
			output:   dir + "/",
		})
	} else {
		builds = append(builds, goBuild{
			what:     "sluice-agent and sluice",
			module:   repo.file(),
			packages: []string{"./cmd/sluice-agent", "./cmd/sluice"},
			output:   dir + "/",
		})
	}
	for _, build := range builds {
		if err := build.run(ctx, progress); err != nil {
			return Programs{}, err
		}
	}
	return Programs{
		Agent:   filepath.Join(dir, "sluice-agent"),
		Plugins: dir,
		Pod:     filepath.Join(dir, "labpod"),
	}, nil
}
