package framework

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"github.com/onsi/ginkgo/v2"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// PortForward opens a port on 127.0.0.1 that leads to a port of the pod, as "kubectl port-forward"
// does, and returns its number. It stays open until the spec's end.
func (p *Pod) PortForward(ctx context.Context, port int) (int, error) {
	dialer, err := p.forwardDialer()
	if err != nil {
		return 0, fmt.Errorf("preparing to forward a port to %s: %w", p, err)
	}
	stop, opened, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var messages bytes.Buffer // read only once the forwarder has ended
	forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"},
		[]string{fmt.Sprintf("0:%d", port)}, stop, opened, nil, &messages)
	if err != nil {
		return 0, fmt.Errorf("preparing to forward a port to %s: %w", p, err)
	}
	var failure error // read only once it has ended
	go func() {
		defer close(ended)
		failure = forwarder.ForwardPorts()
	}()
	select {
	case <-opened:
	case <-ended:
		return 0, fmt.Errorf("forwarding a port to %s: %w: %s", p, failure, messages.String())
	case <-ctx.Done():
		close(stop)
		return 0, fmt.Errorf("forwarding a port to %s: %w", p, ctx.Err())
	}
	ginkgo.DeferCleanup(func() {
		close(stop)
		<-ended
	})
	ports, err := forwarder.GetPorts()
	if err != nil {
		return 0, fmt.Errorf("finding the port that leads to %s: %w", p, err)
	}
	return int(ports[0].Local), nil
}

// forwardDialer speaks WebSocket, as kubectl does, and SPDY where a proxy or an old server won't.
func (p *Pod) forwardDialer() (httpstream.Dialer, error) {
	url := p.cluster.Client.CoreV1().RESTClient().Post().
		Resource("pods").Namespace(p.Namespace).Name(p.Name).SubResource("portforward").URL()
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, p.cluster.Config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(p.cluster.Config)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport},
		http.MethodPost, url)
	return portforward.NewFallbackDialerForStreaming(websocket, plain, needsSPDY), nil
}
