package assets

import (
	"context"
	"io"
	"path/filepath"
)

// OtherAgents is the paths of other projects' node agents.
type OtherAgents struct {
	Flannel    string // of folder flannel: its packages, for Kubernetes and nftables
	KubeRouter string
}

// PeerAgents builds what benchmarks compare with, at the versions of flannel and kuberouter. It
// takes ten minutes the first time: progress gets lines about that.
func PeerAgents(ctx context.Context, progress io.Writer) (OtherAgents, error) {
	const folder = "peers" // of their own: flannel is the name of a CNI plugin, too
	programs, err := build(ctx, progress, func(repo repository, dir string) []goBuild {
		dir = filepath.Join(dir, folder)
		return []goBuild{{
			what:     "flannel",
			module:   repo.file("e2e", "assets", "flannel"),
			packages: []string{"."},
			output:   dir + "/",
			ldflags:  small,
		}, {
			what:     "kube-router",
			module:   repo.file("e2e", "assets", "kuberouter"),
			packages: []string{"github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
			output:   dir + "/",
			ldflags:  small,
		}}
	})
	if err != nil {
		return OtherAgents{}, err
	}
	return OtherAgents{
		Flannel:    filepath.Join(programs.Plugins, folder, "flannel"),
		KubeRouter: filepath.Join(programs.Plugins, folder, "kube-router"),
	}, nil
}
