package server

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
)

// ReservedPort is a port of the node that no pod gets as a host port, at whatever address: what
// answers there is the node's.
type ReservedPort struct {
	Port     uint16
	Protocol string // "tcp", "udp" or "sctp"
}

// ParseReservedPort reads one as in 10250/tcp.
func ParseReservedPort(text string) (ReservedPort, error) {
	number, protocol, _ := strings.Cut(text, "/")
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return ReservedPort{},
			fmt.Errorf("%.50q: expected a port with its protocol, such as 10250/tcp", text)
	}
	return ReservedPort{Port: uint16(port), Protocol: protocol}, nil
}

// SetTunnelPort reserves the UDP port of the tunnel; 0, as before the first call: there is none.
func (s *Server) SetTunnelPort(port uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tunnelPort = port
}

// checkReserved refuses the host ports of a pod to come that are the node's. The caller holds mu.
func (s *Server) checkReserved(ports []cni.HostPort) error {
	for _, p := range ports {
		isTunnel := s.tunnelPort != 0 && p.HostPort == s.tunnelPort && p.Protocol == "udp"
		if isTunnel || slices.Contains(s.opts.ReservedPorts, ReservedPort{p.HostPort, p.Protocol}) {
			return types.NewError(cni.CodeHostPortReserved,
				fmt.Sprintf("host port %s is reserved", p),
				"it is the node's own: --forbidden-host-ports")
		}
	}
	return nil
}

// noteHostPorts tells of host ports that a pod doesn't get, or that it takes from a process of the
// node.
func (s *Server) noteHostPorts(request cni.AddRequest, err error) {
	pod := cni.PodLabel(request.PodNamespace, request.PodName)
	if refused := new(types.Error); errors.As(err, &refused) &&
		refused.Code == cni.CodeHostPortReserved {
		s.opts.OnProblem("HostPortForbidden", fmt.Sprintf("pod %s doesn't start: %s", pod, err))
	}
	if err != nil {
		return
	}
	for _, p := range request.HostPorts {
		var taken bool
		err := s.inHost(func() (err error) { taken, err = isListenedOn(p); return err })
		if err != nil {
			s.opts.Log.V(1).Info("Whether a process of the node has a host port isn't known",
				"port", p.String(), "reason", err.Error())
		}
		if taken {
			s.opts.OnProblem("HostPortInUse",
				fmt.Sprintf("a process of the node listens on host port %s of pod %s: what comes "+
					"there is the pod's now", p, pod))
		}
	}
}
