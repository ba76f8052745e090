package framework

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// Exec runs the test program with args in the pod's container, through the API server, and returns
// what it printed. The error holds what it printed to standard error.
func (p *Pod) Exec(ctx context.Context, args ...string) (string, error) {
	executor, err := p.executor(args)
	if err != nil {
		return "", fmt.Errorf("preparing to run %v in %s: %w", args, p, err)
	}
	var stdout, stderr output
	if err := executor.StreamWithContext(ctx,
		remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return stdout.String(),
			fmt.Errorf("running %v in %s: %w: %s", args, p, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// output is what was printed so far. When a context ends, the stream's goroutines may still write.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// executor speaks WebSocket, as kubectl does, and SPDY where a proxy or an old server won't.
func (p *Pod) executor(args []string) (remotecommand.Executor, error) {
	url := p.cluster.Client.CoreV1().RESTClient().Post().
		Resource("pods").Namespace(p.Namespace).Name(p.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: Container, Command: append([]string{Program}, args...), Stdout: true,
			Stderr: true,
		}, scheme.ParameterCodec).URL()
	websocket, err := remotecommand.NewWebSocketExecutor(p.cluster.Config, "GET", url.String())
	if err != nil {
		return nil, err
	}
	spdy, err := remotecommand.NewSPDYExecutor(p.cluster.Config, "POST", url)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(websocket, spdy, needsSPDY)
}

func needsSPDY(err error) bool {
	return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
}

// Logs are the container's so far, or an ended container's.
func (p *Pod) Logs(ctx context.Context) string {
	var logs string
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) (err error) {
		logs, err = p.cluster.logs(ctx, p.Namespace, p.Name,
			&corev1.PodLogOptions{Container: Container})
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "reading the logs of %s", p)
	return logs
}

func (c *TheCluster) logs(ctx context.Context, namespace, name string,
	o *corev1.PodLogOptions) (string, error) {
	raw, err := c.Client.CoreV1().Pods(namespace).GetLogs(name, o).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the logs of %s/%s: %w", namespace, name, err)
	}
	return string(raw), nil
}
