package kind

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-net/sluice/e2e/assets"
)

// registryTimeout is how long a registry may take to say whether it has an image.
const registryTimeout = 10 * time.Second

// Image is what the nodes of a cluster run.
type Image struct {
	Name string
	// kind's own; the other is also right where cgroups are of version 1 and limits can't be raised
	Stock bool
}

// NodeImage returns the image of nodes. What it does when that takes long goes to progress.
// $NODE_IMAGE overrides it.
func NodeImage(ctx context.Context, progress io.Writer) (Image, error) {
	if name := os.Getenv("NODE_IMAGE"); name != "" {
		return Image{Name: name, Stock: true}, nil
	}
	version, err := assets.NodeKubernetesVersion()
	if err != nil {
		return Image{}, err
	}
	built, err := builtName(version)
	if err != nil {
		return Image{}, err
	}
	if haveImage(ctx, built) {
		return Image{Name: built}, nil
	}
	stock := "kindest/node:" + version
	if haveImage(ctx, stock) {
		return Image{Name: stock, Stock: true}, nil
	}
	if inRegistry(ctx, stock) {
		err := during(progress, "pulling "+stock, func() error {
			_, err := command(ctx, "docker", "pull", "--quiet", stock)
			return err
		})
		return Image{Name: stock, Stock: true}, err
	}
	linef(progress, "%s can't be pulled here, so the image of nodes is built, once", stock)
	return Image{Name: built}, buildNodeImage(ctx, progress, built)
}

//go:embed node-setup.sh
var nodeSetup []byte

// builtName is the image that is built of what the repository says now.
func builtName(version string) (string, error) {
	key, err := assets.NodeKey()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, part := range [][]byte{[]byte(key), nodeSetup, proxyHelpersScript,
		[]byte(fmt.Sprint(assets.DebianSuite, debianPackages))} {
		_, _ = sum.Write(part) // a hash takes anything
	}
	return "sluice-net/kind-node:" + version + "-" + hex.EncodeToString(sum.Sum(nil))[:12], nil
}

func haveImage(ctx context.Context, name string) bool {
	_, err := command(ctx, "docker", "image", "inspect", name)
	return err == nil
}

// inRegistry asks the registry, not for long: there may be a firewall.
func inRegistry(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	_, err := command(ctx, "docker", "manifest", "inspect", name)
	return err == nil
}

// buildNodeImage makes the image called name.
func buildNodeImage(ctx context.Context, progress io.Writer, name string) (err error) {
	dir, err := os.MkdirTemp("", "sluice-node-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	node, err := assets.NodePrograms(ctx, progress, filepath.Join(dir, "programs"))
	if err != nil {
		return err
	}
	root, images := filepath.Join(dir, "root"), filepath.Join(dir, "images")
	if err := makeRoot(ctx, progress, node, root); err != nil {
		return err
	}
	if err := makeImages(ctx, progress, node, root, images); err != nil {
		return err
	}
	return during(progress, "making the image of nodes", func() error {
		return commitNode(ctx, root, images, name)
	})
}

// commitNode imports the root, runs node-setup.sh in it, which needs the root's own programs, and
// commits what came of it.
func commitNode(ctx context.Context, root, images, name string) error {
	base := name + "-base"
	if _, err := command(ctx, "sh", "-c", `tar --numeric-owner -C "$1" -c . | docker import - "$2"`,
		"sh", root, base); err != nil {
		return err
	}
	defer func() { _, _ = command(context.WithoutCancel(ctx), "docker", "image", "rm", base) }()
	// The stop signal and the variable stay with the image; the one is systemd's, the other says
	// where it is.
	container, err := command(ctx, "docker", "run", "--detach", "--security-opt",
		"seccomp=unconfined", "--network", "none",
		"--stop-signal", "SIGRTMIN+3", "--env", "container=docker",
		"--volume", images+":/images:ro", base, "sleep", "infinity")
	if err != nil {
		return err
	}
	defer func() {
		_, _ = command(context.WithoutCancel(ctx), "docker", "rm", "--force", "--volumes",
			container)
	}()
	if _, err := command(ctx, "docker", "exec", container, "bash",
		"/kind/node-setup.sh"); err != nil {
		return err
	}
	_, err = command(ctx, "docker", "commit",
		"--change", `ENTRYPOINT [ "/usr/local/bin/entrypoint", "/sbin/init" ]`,
		"--change", "CMD []",
		container, name)
	return err
}
