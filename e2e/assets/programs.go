package assets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Programs is the paths of what is built from this repository for a lab.
type Programs struct {
	Agent   string // sluice-agent
	Plugins string // folder of the CNI plugins
	Pod     string // what runs in a pod
	// KubeProxy is Kubernetes', for networks of others.
	KubeProxy string
}

// BuiltVariable is the environment variable that, if it isn't empty, says that the programs were
// built before (make programs) and are taken as they are: where they run, building is too slow.
const BuiltVariable = "SLUICE_PROGRAMS_BUILT"

// Wiring builds this repository's programs. With stock, these are the pod's alone, and for plugins
// there are ptp and host-local of the CNI project.
func Wiring(ctx context.Context, progress io.Writer, stock bool) (Programs, error) {
	return build(ctx, progress, func(repo repository, dir string) []goBuild {
		pod := goBuild{
			what:     "the program of pods",
			module:   repo.file("e2e"),
			packages: []string{"./cmd/labpod"},
			output:   dir + "/",
		}
		if stock {
			return []goBuild{pod, stockPlugins(repo, dir, "main/ptp", "ipam/host-local")}
		}
		return []goBuild{pod, {
			what:     "sluice-agent and sluice",
			module:   repo.file(),
			packages: []string{"./cmd/sluice-agent", "./cmd/sluice"},
			output:   dir + "/",
		}}
	})
}

// Foreign builds what networks of others need, into the same folder of plugins: bridge, ptp,
// macvlan and host-local of the CNI project; multus, which takes a minute the first time, and
// kube-proxy.
func Foreign(ctx context.Context, progress io.Writer) (Programs, error) {
	repo, err := findRepository()
	if err != nil {
		return Programs{}, err
	}
	pins, err := readPins(repo)
	if err != nil {
		return Programs{}, err
	}
	return build(ctx, progress, func(repo repository, dir string) []goBuild {
		return []goBuild{
			stockPlugins(repo, dir, "main/bridge", "main/ptp", "main/macvlan", "ipam/host-local"),
			{
				what:     "multus",
				module:   repo.file("e2e", "assets", "multus"),
				packages: []string{"gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus"},
				output:   dir + "/",
				ldflags:  small,
			}, {
				what:     "kube-proxy",
				module:   repo.file("e2e", "assets", "kubernetes"),
				packages: []string{kubernetesModule + "/cmd/kube-proxy"},
				output:   dir + "/",
				ldflags:  kubernetesLdflags(pins.kubernetes),
			},
		}
	})
}

// stockPlugins builds plugins of the CNI project, which are named as in its tree.
func stockPlugins(repo repository, dir string, names ...string) goBuild {
	b := goBuild{
		what:   "the stock CNI plugins",
		module: repo.file("e2e", "assets", "plugins"),
		output: dir + "/",
	}
	for _, name := range names {
		b.packages = append(b.packages, "github.com/containernetworking/plugins/plugins/"+name)
	}
	return b
}

// build builds what is asked for, given the folder for it.
func build(ctx context.Context, progress io.Writer,
	builds func(repo repository, dir string) []goBuild) (Programs, error) {
	repo, err := findRepository()
	if err != nil {
		return Programs{}, err
	}
	cache, err := cacheFolder()
	if err != nil {
		return Programs{}, err
	}
	// One clone doesn't run what another built.
	sum := sha256.Sum256([]byte(repo))
	dir := filepath.Join(cache, "bin-"+hex.EncodeToString(sum[:])[:12])
	for _, b := range builds(repo, dir) {
		if os.Getenv(BuiltVariable) != "" {
			break
		}
		if err := b.alone(ctx, progress, dir+"-"+strings.ReplaceAll(b.what, " ", "-")); err != nil {
			return Programs{}, err
		}
	}
	return Programs{
		Agent:   filepath.Join(dir, "sluice-agent"),
		Plugins: dir,
		Pod:     filepath.Join(dir, "labpod"),

		KubeProxy: filepath.Join(dir, "kube-proxy"),
	}, nil
}
