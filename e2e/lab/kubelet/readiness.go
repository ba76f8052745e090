package kubelet

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluice-net/sluice/test/stretch"
)

// eagerPeriod is how often a container that was never ready is probed: nobody should wait ten
// seconds for a lab's pod.
var eagerPeriod = stretch.By(250 * time.Millisecond)

// dialFunc connects from the node.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// probers asks the readiness probes of a pod's containers, from the node's namespace, as a kubelet
// does.
type probers struct {
	dial dialFunc
	addr netip.Addr // the pod's first
	all  []*prober
}

// prober is the state of one container's probe.
type prober struct {
	container corev1.Container
	next      time.Time // when to ask
	ever      bool      // it was ready once
	ready     bool
	successes int32 // in a row
	failures  int32 // in a row
}

func newProbers(dial dialFunc, pod *corev1.Pod, addrs []netip.Addr) *probers {
	p := &probers{dial: dial, addr: addrs[0]}
	for _, container := range runningContainers(pod) {
		first := time.Now()
		if container.ReadinessProbe != nil {
			first = first.Add(seconds(container.ReadinessProbe.InitialDelaySeconds, 0))
		}
		p.all = append(p.all, &prober{container: container, next: first})
	}
	return p
}

// run asks those probes whose time has come and returns which containers are ready.
func (p *probers) run(ctx context.Context) map[string]bool {
	ready := map[string]bool{}
	for _, prober := range p.all {
		probe := prober.container.ReadinessProbe
		if probe == nil {
			ready[prober.container.Name] = true
			continue
		}
		if now := time.Now(); !now.Before(prober.next) {
			prober.note(probe, p.ask(ctx, prober.container, probe))
			prober.next = now.Add(eagerPeriod)
			if prober.ever {
				prober.next = now.Add(seconds(probe.PeriodSeconds, 10))
			}
		}
		ready[prober.container.Name] = prober.ready
	}
	return ready
}

// next returns how long it is until run has something to ask.
func (p *probers) next() time.Duration {
	soonest := time.Hour
	for _, prober := range p.all {
		if prober.container.ReadinessProbe != nil {
			soonest = min(soonest, time.Until(prober.next))
		}
	}
	return soonest
}

// note takes the outcome of one probe.
func (p *prober) note(probe *corev1.Probe, ok bool) {
	if !ok {
		p.successes = 0
		p.failures++
		p.ready = p.ready && p.failures < cmp.Or(probe.FailureThreshold, 3)
		return
	}
	p.failures = 0
	p.successes++
	p.ready = p.ready || p.successes >= cmp.Or(probe.SuccessThreshold, 1)
	p.ever = p.ever || p.ready
}

// ask says whether one probe succeeds. Kinds that need a program in the container always do.
func (p *probers) ask(ctx context.Context, container corev1.Container, probe *corev1.Probe) bool {
	ctx, cancel := context.WithTimeout(ctx, seconds(probe.TimeoutSeconds, 1))
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return p.get(ctx, container, probe.HTTPGet)
	case probe.TCPSocket != nil:
		address, ok := p.address(container, probe.TCPSocket.Host, probe.TCPSocket.Port)
		if !ok {
			return false
		}
		conn, err := p.dial(ctx, "tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}
	return true
}

// get makes a request; certificates aren't checked, as a kubelet doesn't.
func (p *probers) get(
	ctx context.Context, container corev1.Container, get *corev1.HTTPGetAction,
) bool {
	address, ok := p.address(container, get.Host, get.Port)
	if !ok {
		return false
	}
	scheme := strings.ToLower(cmp.Or(string(get.Scheme), "http"))
	path := "/" + strings.TrimPrefix(get.Path, "/")
	request, err := http.NewRequestWithContext(
		ctx,
		http.MethodGet,
		fmt.Sprintf("%s://%s%s", scheme, address, path),
		nil,
	)
	if err != nil {
		return false
	}
	for _, header := range get.HTTPHeaders {
		request.Header.Add(header.Name, header.Value)
	}
	transport := &http.Transport{
		DialContext: p.dial, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode >= http.StatusOK && response.StatusCode < http.StatusBadRequest
}

// address is what a probe connects to: the pod unless it names a host. A port may be named.
func (p *probers) address(
	container corev1.Container, host string, port intstr.IntOrString,
) (string, bool) {
	number := port.IntValue()
	if port.Type == intstr.String && number == 0 {
		for _, named := range container.Ports {
			if named.Name == port.StrVal {
				number = int(named.ContainerPort)
			}
		}
	}
	return net.JoinHostPort(cmp.Or(host, p.addr.String()), strconv.Itoa(number)), number > 0
}

// seconds is n seconds, or the default if n is zero.
func seconds(n int32, unset int32) time.Duration {
	return time.Duration(cmp.Or(n, unset)) * time.Second
}
