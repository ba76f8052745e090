package assets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// releasesURL is a file that setup-envtest begins with. Whether it can be had says whether to try.
const releasesURL = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/" +
	"envtest-releases.yaml"

// reachableTimeout is how long the internet may take to answer. Building takes minutes, but the
// wait for a firewall's silence should be short.
const reachableTimeout = 3 * time.Second

// downloadControlPlane has setup-envtest download the programs, and makes dir a link to them. The
// error says why it can't.
func downloadControlPlane(ctx context.Context, progress io.Writer, repo repository, pins pins,
	cache, dir string) error {
	if err := reachable(ctx); err != nil {
		return fmt.Errorf("the internet isn't reachable (%w)", err)
	}
	linef(progress, "downloading etcd, kube-apiserver and kubectl %s.%s with setup-envtest",
		pins.major, pins.minor)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "tool", "setup-envtest", "use",
		pins.major+"."+pins.minor+".x",
		"--print", "path", "--bin-dir", filepath.Join(cache, "envtest"))
	cmd.Dir = repo.file("e2e", "assets", "envtest")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("setup-envtest: %w %s", err, lastLine(stderr.String()))
	}
	downloaded := strings.TrimSpace(stdout.String())
	if _, err := controlIn(downloaded); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(downloaded, dir)
}

func reachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachableTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, releasesURL, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return errors.Unwrap(err) // without the URL
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
