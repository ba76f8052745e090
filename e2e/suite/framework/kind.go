package framework

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
)

// Kind is a cluster of kind's, whose nodes are containers of the local Docker.
type Kind struct {
	Name string // kind's name of the cluster

	image string // the test program's
}

// RequireKind returns the kind cluster, or skips the spec if it isn't one.
func (c *TheCluster) RequireKind() *Kind {
	if c.Kind == nil {
		ginkgo.Skip("SLUICE_KIND_CLUSTER isn't set: this spec runs commands on the nodes, which "+
			"must be containers of kind's", 1)
	}
	return c.Kind
}

// ControlPlane is the name of the control plane's node.
func (k *Kind) ControlPlane() string { return k.Name + "-control-plane" }

// Exec runs a command on a node, and returns what it printed to standard output. The error holds
// what it printed to standard error.
func (k *Kind) Exec(ctx context.Context, node string, args ...string) (string, error) {
	return docker(ctx, append([]string{"exec", node}, args...)...)
}

// Restart restarts a node as a reboot does: its processes end, and its network namespace is new. It
// returns once the container runs; the node's kubelet takes longer.
func (k *Kind) Restart(ctx context.Context, node string) {
	_, err := docker(ctx, "restart", "--time", "20", node)
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred(), "restarting node %s", node)
}

// docker runs Docker's client and returns its standard output.
func docker(ctx context.Context, args ...string) (string, error) {
	return dockerIn(ctx, nil, args...)
}

// dockerIn is docker with a standard input.
func dockerIn(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "docker", args...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = stdin, &stdout, &stderr
	command.WaitDelay = 5 * time.Second // a child that keeps the pipes open
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("running docker %s: %w: %s", strings.Join(args, " "),
			err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
