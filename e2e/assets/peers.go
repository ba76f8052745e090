package assets

import (
	"context"
	"io"
	"path/filepath"
)

// OtherAgents is the paths of other projects' node agents.
type OtherAgents struct {
	Flannel    string // the program of folder flannel: flannel's packages, for Kubernetes and nftables
	KubeRouter string // kube-router itself
}

// PeerAgents builds what benchmarks compare with, at the versions of flannel and kuberouter. It
// takes ten minutes the first time: progress gets lines about that.
func PeerAgents(ctx context.Context, progress io.Writer) (OtherAgents, error) {
	programs, err := build(ctx, progress, func(repo repository, dir string) []goBuild {
		return []goBuild{{
			what:     "flannel",
			module:   repo.file("e2e", "assets", "flannel"),
			packages: []string{"."},
			output:   dir + "/",
			ldflags:  "-s -w",
		}, {
			what:     "kube-router",
			module:   repo.file("e2e", "assets", "kuberouter"),
			packages: []string{"github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"},
			output:   dir + "/",
			ldflags:  "-s -w",
		}}
	})
	if err != nil {
		return OtherAgents{}, err
	}
	return OtherAgents{
		Flannel:    filepath.Join(programs.Plugins, "flannel"),
		KubeRouter: filepath.Join(programs.Plugins, "kube-router"),
	}, nil
}
