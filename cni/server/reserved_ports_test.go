package server

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// told collects what a server says to people.
type told struct {
	mu   sync.Mutex
	all  []string
	text []string
}

func (s *told) option(o *Options) {
	o.OnProblem = func(reason, message string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all, s.text = append(s.all, reason), append(s.text, message)
	}
}

func (s *told) take() (reasons []string, messages string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reasons, messages, s.all, s.text = s.all, strings.Join(s.text, "\n"), nil, nil
	return reasons, messages
}

func TestParseReservedPort(t *testing.T) {
	t.Parallel()
	if got, err := ParseReservedPort("10250/tcp"); err != nil ||
		got != (ReservedPort{10250, "tcp"}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "10250", "0/tcp", "65536/udp", "-1/tcp", "x/tcp", "80/icmp",
		"80/TCP", "80/tcp/x", "tcp/80"} {
		if got, err := ParseReservedPort(bad); err == nil ||
			!strings.Contains(err.Error(), "expected a port with its protocol") {
			t.Errorf("%q: got %v, %v", bad, got, err)
		}
	}
}

// A pod to come doesn't get the node's ports, at whatever address, and a person hears of it. The
// control: the same number of another protocol, and the tunnel's port once there is no tunnel. Pods
// that have such a port, from before, keep it.
func TestReservedHostPorts(t *testing.T) {
	t.Parallel()
	var said told
	a := newAgent(t, said.option, func(o *Options) {
		o.ReservedPorts = []ReservedPort{{10250, "tcp"}, {6443, "tcp"}}
	})
	with := func(container, hostIP string, port uint16, protocol string) cni.AddRequest {
		p := cni.HostPort{HostPort: port, ContainerPort: 80, Protocol: protocol}
		if hostIP != "" {
			p.HostIP = netip.MustParseAddr(hostIP)
		}
		r := cnitest.RequestFor(container, "pod-"+container)
		r.HostPorts = []cni.HostPort{p}
		return r
	}
	a.MustAdd(with("c0", "", 8472, "udp")) // before there is a tunnel
	a.server.SetTunnelPort(8472)
	a.MustAdd(with("c0", "", 8472, "udp")) // a repeated ADD
	for i, r := range []cni.AddRequest{with("c1", "", 10250, "tcp"),
		with("c1", "127.0.0.1", 6443, "tcp"), with("c1", "::", 8472, "udp")} {
		_, err := a.Add(r)
		cnitest.MustFail(t, err, cni.CodeHostPortReserved,
			fmt.Sprintf("host port %s is reserved", r.HostPorts[0]), "--forbidden-host-ports")
		if reasons, text := said.take(); !slices.Equal(reasons, []string{"HostPortForbidden"}) ||
			!strings.Contains(text, "pod dev/pod-c1 doesn't start: host port "+
				r.HostPorts[0].String()) {
			t.Errorf("%d: told %q: %s", i, reasons, text)
		}
	}
	a.Expect("c0/eth0")
	a.MustAdd(with("c2", "", 10250, "udp"))
	a.server.SetTunnelPort(0)
	a.MustAdd(with("c3", "", 8473, "udp"))
	if reasons, text := said.take(); len(reasons) > 0 {
		t.Errorf("told %q: %s", reasons, text)
	}
}

// A person hears of a host port on which a process of the node listens. The control: nobody listens
// there, or elsewhere.
func TestHostPortsInUse(t *testing.T) {
	t.Parallel()
	var said told
	n := newNode(t, said.option)
	n.InNode(func() error {
		for _, at := range []string{"tcp4 0.0.0.0:81", "tcp [::]:82", "tcp 127.0.0.1:83",
			"udp4 0.0.0.0:84", "udp [2001:db8::1]:85"} {
			network, address, _ := strings.Cut(at, " ")
			var c interface{ Close() error }
			var err error
			if strings.HasPrefix(network, "tcp") {
				c, err = net.Listen(network, address) //nolint:noctx // it doesn't wait
			} else {
				c, err = net.ListenPacket(network, address) //nolint:noctx // likewise
			}
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = c.Close() })
		}
		return nil
	})
	for i, test := range []struct {
		hostIP, protocol string
		port             uint16
		used             bool
	}{
		{"", "tcp", 80, false},
		{"", "tcp", 81, true},
		{"", "udp", 81, false},
		{"192.0.2.1", "tcp", 81, true},
		{"::", "tcp", 81, false},
		{"", "tcp", 82, true},
		{"192.0.2.1", "tcp", 82, true},
		{"", "tcp", 83, true},
		{"192.0.2.1", "tcp", 83, false},
		{"", "udp", 84, true},
		{"2001:db8::1", "udp", 85, true},
		{"192.0.2.1", "udp", 85, false},
		{"", "sctp", 81, false},
	} {
		p := cni.HostPort{HostPort: test.port, ContainerPort: 80, Protocol: test.protocol}
		if test.hostIP != "" {
			p.HostIP = netip.MustParseAddr(test.hostIP)
		}
		var used bool
		err := n.NetNS.Do(func(ns.NetNS) (err error) { used, err = isListenedOn(p); return err })
		if err != nil || used != test.used {
			t.Errorf("%d, %s: %t, error %v, want %t", i, p, used, err, test.used)
		}
	}
	pod := n.newPod("c1", "pod-a")
	pod.Args.StdinData = []byte(strings.Replace(string(pod.Args.StdinData), `{`,
		`{"runtimeConfig":{"portMappings":[{"hostPort":81,"containerPort":80,"protocol":"tcp"},{"hostPort":90,"containerPort":80,"protocol":"tcp"}]},`, 1))
	pod.MustAdd()
	reasons, text := said.take()
	if !slices.Equal(reasons, []string{"HostPortInUse"}) ||
		!strings.Contains(text, "host port tcp *:81 of pod dev/pod-a") {
		t.Errorf("told %q: %s", reasons, text)
	}
}
