package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what a cluster is like.
type Options struct {
	Name       string // of the cluster
	Kubeconfig string // file to write
	Family     Family
	Proxy      ProxyMode
	Workers    int
	Manifest   string   // what installs Sluice; empty: nothing does, and nodes don't become Ready
	Images     []string // files of images to load into every node
}

// createTimeout is how long kind may take, which takes half a minute.
const createTimeout = 10 * time.Minute

// readyTimeout is how long nodes may take to become Ready once Sluice is installed.
const readyTimeout = 5 * time.Minute

// Up makes a cluster of one control plane and some workers, with nothing but Sluice for a pod
// network, and waits until its nodes and its DNS are ready. A cluster of that name that exists is
// an error.
func Up(ctx context.Context, progress io.Writer, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	exists, err := o.exists(ctx)
	if err != nil {
		return err
	}
	if exists {
		return fmt.Errorf("cluster %s exists already", o.Name)
	}
	image, err := NodeImage(ctx, progress)
	if err != nil {
		return fmt.Errorf("looking for the image of nodes: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.Kubeconfig), 0o755); err != nil {
		return err
	}
	start := time.Now()
	config := strings.NewReader(o.config(image))
	err = during(progress, fmt.Sprintf("kind creates cluster %s (%s, kube-proxy in %s mode)",
		o.Name, o.Family, o.Proxy), func() error {
		limited, cancel := context.WithTimeout(ctx, createTimeout)
		defer cancel()
		_, err := commandIn(limited, config, "kind", "create", "cluster", "--name", o.Name,
			"--kubeconfig", o.Kubeconfig, "--config", "-")
		if errors.Is(limited.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("kind isn't done after %s; with several clusters on a machine, "+
				"fs.inotify.max_user_instances may be too low: %w", createTimeout, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	linef(progress, "cluster %s made after %s", o.Name, time.Since(start).Round(time.Second))
	for _, file := range o.Images {
		if _, err := command(ctx, "kind", "load", "image-archive", file, "--name",
			o.Name); err != nil {
			return err
		}
	}
	if o.Manifest == "" {
		return nil
	}
	if err := o.install(ctx); err != nil {
		return err
	}
	if err := o.waitReady(ctx, progress); err != nil {
		return err
	}
	linef(progress, "cluster %s ready with Sluice after %s", o.Name,
		time.Since(start).Round(time.Second))
	return nil
}

// Down removes a cluster. One that isn't there is no error.
func Down(ctx context.Context, name, kubeconfig string) error {
	if _, err := command(ctx, "kind", "delete", "cluster", "--name", name, "--kubeconfig",
		kubeconfig); err != nil {
		return err
	}
	if err := os.Remove(kubeconfig); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (o Options) exists(ctx context.Context) (bool, error) {
	names, err := command(ctx, "kind", "get", "clusters", "--quiet")
	return slices.Contains(strings.Fields(names), o.Name), err
}

// kubectl runs the one of the control plane's container: this machine may have none.
func (o Options) kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	args = append([]string{"exec", "--interactive", o.Name + "-control-plane", "kubectl",
		"--kubeconfig=/etc/kubernetes/admin.conf"}, args...)
	return commandIn(ctx, stdin, "docker", args...)
}

// install applies the manifest, with the pod network of the cluster's families in it, as a user
// would edit it.
func (o Options) install(ctx context.Context) error {
	text, err := os.ReadFile(o.Manifest)
	if err != nil {
		return err
	}
	if o.Family != IPv4 {
		if text, err = replaceNetConf(text, o.netConf()); err != nil {
			return fmt.Errorf("%s: %w", o.Manifest, err)
		}
	}
	_, err = o.kubectl(ctx, bytes.NewReader(text), "apply", "-f", "-")
	return err
}

// replaceNetConf gives the ConfigMap of a manifest another net-conf.json, which is a literal block
// of deeper indented lines.
func replaceNetConf(manifest []byte, netConf string) ([]byte, error) {
	const key = "  net-conf.json: |"
	var lines []string
	found, within := false, false
	for line := range strings.Lines(string(manifest)) {
		if within && strings.HasPrefix(line, "    ") {
			continue
		}
		within = false
		lines = append(lines, line)
		if strings.HasPrefix(line, key) {
			found, within = true, true
			lines = append(lines, "    "+netConf+"\n")
		}
	}
	if !found {
		return nil, errors.New("no net-conf.json")
	}
	return []byte(strings.Join(lines, "")), nil
}

func (o Options) waitReady(ctx context.Context, progress io.Writer) error {
	timeout := "--timeout=" + readyTimeout.String()
	for _, args := range [][]string{
		{"--namespace", "sluice-system", "rollout", "status", "daemonset/sluice-agent", timeout},
		{"wait", "--for=condition=Ready", "nodes", "--all", timeout},
		{"--namespace", "kube-system", "rollout", "status", "deployment/coredns", timeout},
	} {
		err := during(progress, "waiting: kubectl "+strings.Join(args, " "), func() error {
			_, err := o.kubectl(ctx, nil, args...)
			return err
		})
		if err != nil {
			pods, _ := o.kubectl(ctx, nil, "get", "nodes,pods", "--all-namespaces", "--output=wide")
			return fmt.Errorf("%w\n%s", err, pods)
		}
	}
	return nil
}
