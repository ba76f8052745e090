package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/cni"
)

// check says how an attachment should be, and what the agent sees that isn't so.
func (s *Server) check(_ context.Context, request cni.CheckRequest) (cni.CheckAnswer, error) {
	id := cni.AttachmentID(request.ContainerID, request.IfName)
	s.mu.Lock()
	a, known := s.attachments[id]
	_, leaves := s.leaving[id]
	s.mu.Unlock()
	if !known || leaves {
		unknown := fmt.Sprintf("agent: attachment %s isn't known", id)
		return cni.CheckAnswer{Differences: []string{unknown}}, nil
	}
	answer := cni.CheckAnswer{AddAnswer: s.answer(a)}
	have, want := sortedAddrs(request.Addresses), sortedAddrs(a.Addresses)
	if !slices.Equal(have, want) {
		answer.Differences = append(answer.Differences,
			fmt.Sprintf("agent: the attachment has the addresses %s, and prevResult %s",
				want, have))
	}
	if err := s.opts.Enforcer.Enforced(id); err != nil {
		answer.Differences = append(answer.Differences,
			fmt.Sprintf("agent: the pod's policy: %s", err))
	}
	return answer, nil
}

func sortedAddrs(addrs []netip.Addr) []netip.Addr {
	return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
}

// status fails while the node should carry no pod at all.
func (s *Server) status(context.Context, cni.StatusRequest) (cni.StatusAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := cni.Heartbeat{BootID: s.records.BootID, Ready: s.wasReady || s.lacks() == "",
		Reason: s.lacks()}
	if err := now.Status(now.Beat); err != nil {
		return cni.StatusAnswer{}, err
	}
	return cni.StatusAnswer{PodCIDRs: slices.Clone(s.addresses.prefixes),
		Attachments: len(s.attachments) - len(s.leaving)}, nil
}
