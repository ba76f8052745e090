package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
)

// add gives a pod its place: addresses, a record, and its policy in the kernel, in this order. When
// it fails, all of it is undone.
func (s *Server) add(ctx context.Context, request cni.AddRequest) (cni.AddAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.addTimeout)
	defer cancel()
	if err := s.mayAdd(request); err != nil {
		return cni.AddAnswer{}, err
	}
	id := cni.AttachmentID(request.ContainerID, request.IfName)
	unlock, err := s.busy.lock(ctx, id)
	if err != nil {
		return cni.AddAnswer{}, tryAgain("another request for the same attachment is under way",
			err)
	}
	defer unlock()
	if err := s.makeRoom(ctx, request); err != nil {
		return cni.AddAnswer{}, err
	}
	a, before, err := s.place(request)
	s.noteExhaustion(err)
	s.noteHostPorts(request, err)
	if errors.Is(err, errExhausted) || errors.Is(err, errNoPodCIDR) || errors.Is(err, errAllRest) {
		err = tryAgain("no address for the pod", err)
	}
	if err != nil {
		return cni.AddAnswer{}, err
	}
	s.keepHostEnds() // also this one, once it is there
	if _, err := s.seesNamespace(a); err != nil {
		s.opts.Log.V(1).Info("The pod's network namespace can't be looked at", "attachment", id,
			"reason", err.Error())
	}
	isAttached := false
	defer func() {
		if !isAttached { // also after a panic
			s.undo(ctx, a, before.ContainerID == "")
		}
	}()
	s.opts.step("recorded")
	if err := s.open(ctx, a, before.HostPorts); err != nil {
		return cni.AddAnswer{}, attachError(a, err)
	}
	if err := ctx.Err(); err != nil {
		// The plugin is gone, and DEL may have been before us.
		return cni.AddAnswer{}, attachError(a, err)
	}
	isAttached = true
	s.opts.step("opened")
	s.opts.Log.V(1).Info("Attached", "namespace", a.PodNamespace, "pod", a.PodName, "attachment",
		id, "addresses", a.Addresses)
	return s.answer(a), nil
}

// mayAdd says why no pod can be added now, or not this way.
func (s *Server) mayAdd(request cni.AddRequest) error {
	if s.opts.PolicyOnly && !request.PolicyOnly {
		return types.NewError(types.ErrInvalidNetworkConfig,
			"this node's agent enforces policy only",
			`another plugin wires the pods; sluice belongs after it in its list, `+
				`with "mode":"policy"`)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.datapathReady {
		return types.NewError(types.ErrTryAgainLater, "the node's network isn't ready",
			s.datapathReason)
	}
	return nil
}

// open puts a pod under policy, and lets traffic find it: nothing that connection tracking
// remembers of its addresses, or of who had its host ports, must lead past the rules.
func (s *Server) open(ctx context.Context, a cni.Attachment, oldPorts []cni.HostPort) error {
	if err := s.connections.forget(a.Addresses); err != nil {
		return err
	}
	s.opts.step("forgotten")
	if err := s.opts.Enforcer.Attach(ctx, a); err != nil {
		return err
	}
	s.opts.step("attached")
	if ports := slices.Concat(oldPorts, a.HostPorts); len(ports) > 0 {
		return s.inHost(func() error { return forgetHostPorts(ports) })
	}
	return nil
}

// attachError tells the runtime to try again, unless the enforcer knows better.
func attachError(a cni.Attachment, err error) error {
	if known := new(types.Error); errors.As(err, &known) {
		return known
	}
	return tryAgain(fmt.Sprintf("the policy of pod %s/%s isn't in the kernel yet",
		a.PodNamespace, a.PodName), err)
}

func tryAgain(message string, cause error) error {
	return types.NewError(types.ErrTryAgainLater, message, cause.Error())
}

// makeRoom waits for DELs that still hold what the request needs, and drops the attachments of
// older sandboxes of the same pod, whose link the plugin has removed.
func (s *Server) makeRoom(ctx context.Context, request cni.AddRequest) error {
	id := cni.AttachmentID(request.ContainerID, request.IfName)
	// what its last DEL left, which nobody else works on, as we have the lock
	if _, leaves := s.leaver(id); leaves {
		if err := s.drop(ctx, id, used); err != nil {
			return tryAgain("the container's last attachment can't be detached", err)
		}
	}
	for _, done := range s.inTheWay(request) {
		select {
		case <-done:
		case <-ctx.Done():
			return tryAgain("what the pod needs is still being taken from another",
				context.Cause(ctx))
		}
	}
	for _, old := range s.Attachments() {
		isOlderSandbox := old.Interface != "" && old.Interface == request.HostInterface() &&
			old.ContainerID != request.ContainerID
		isOther := old.ID() == id &&
			(old.PolicyOnly != request.PolicyOnly ||
				old.PolicyOnly && !slices.Equal(old.Addresses, request.Addresses))
		if isOther { // we have its lock
			if err := s.drop(ctx, old.ID(), used); err != nil {
				return tryAgain("the pod's attachment can't be replaced", err)
			}
		}
		if !isOlderSandbox {
			continue
		}
		// Waiting here for the lock of someone who may wait for ours would be for ever.
		unlock, _ := s.busy.tryLock(old.ID())
		if unlock == nil {
			return tryAgain("an older sandbox of the pod is being worked on", errors.New(old.ID()))
		}
		if err := s.dropAndUnlock(ctx, old.ID(), unlock); err != nil {
			return tryAgain("an older sandbox of the pod can't be detached", err)
		}
	}
	return nil
}

// inTheWay returns what is closed when the attachments that leave have left with the link, the host
// ports or the addresses of a request. Who leaves waits for nobody.
func (s *Server) inTheWay(request cni.AddRequest) []chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []chan struct{}
	for id, leaver := range s.leaving {
		old := s.attachments[id]
		_, samePort := cni.Overlap(request.HostPorts, old.HostPorts)
		sameLink := old.Interface != "" && old.Interface == request.HostInterface()
		sameAddr := slices.ContainsFunc(request.Addresses, func(addr netip.Addr) bool {
			return slices.Contains(old.Addresses, addr)
		})
		if samePort || sameLink || sameAddr {
			all = append(all, leaver.done)
		}
	}
	return all
}

// place returns the attachment as the request wants it, new or, with its addresses, the one that is
// on record, which is then also returned as it was before. It is recorded; one that can't be is
// none.
func (s *Server) place(request cni.AddRequest) (a, before cni.Attachment, err error) {
	a, before, err = s.take(request)
	if err != nil {
		return a, before, err
	}
	if err := s.writeRecords(a); err != nil {
		if before.ContainerID == "" { // the record may be there: what failed can be what came after
			_ = s.records.Remove(a.ContainerID, a.IfName)
		}
		s.untake(a, before)
		return a, before, tryAgain("the pod can't be recorded", err)
	}
	return a, before, nil
}

// take is place without the files.
func (s *Server) take(request cni.AddRequest) (a, before cni.Attachment, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := cni.AttachmentID(request.ContainerID, request.IfName)
	before, isOld := s.attachments[id]
	if isOld && (before.PodNamespace != request.PodNamespace || before.PodName != request.PodName ||
		before.PodUID != request.PodUID) {
		return a, before, types.NewError(types.ErrInvalidEnvironmentVariables,
			"the container is of another pod",
			fmt.Sprintf("%s/%s with UID %s", before.PodNamespace, before.PodName, before.PodUID))
	}
	if !isOld {
		if err := s.checkReserved(request.HostPorts); err != nil {
			return a, before, err
		}
	}
	if err := s.checkHostPorts(id, request.HostPorts); err != nil {
		return a, before, err
	}
	addresses := before.Addresses
	switch {
	case isOld:
	case request.PolicyOnly:
		addresses, err = request.Addresses, s.claim(request.Addresses)
	default:
		addresses, err = s.addresses.allocate(s.opts.Now())
	}
	if err != nil {
		return a, before, err
	}
	a = cni.Attachment{
		ContainerID: request.ContainerID, IfName: request.IfName,
		PodNamespace: request.PodNamespace, PodName: request.PodName, PodUID: request.PodUID,
		Interface: request.HostInterface(), Addresses: addresses, MTU: s.mtu,
		Network: request.Network, Netns: request.Netns, NetnsInode: request.NetnsInode,
		HostPorts: request.HostPorts, Bandwidth: request.Bandwidth, PolicyOnly: request.PolicyOnly,
	}
	s.attachments[id] = a
	s.placed[id] = s.opts.Now()
	return a, before, nil
}

// untake makes take undone.
func (s *Server) untake(a, before cni.Attachment) {
	s.mu.Lock()
	if before.ContainerID != "" {
		s.attachments[a.ID()] = before
	} else {
		s.remove(a, unused)
	}
	s.mu.Unlock()
	_ = s.writeLedger() // it is noted, and tried again
}

// checkHostPorts wants host ports that no other attachment has. The caller holds mu.
func (s *Server) checkHostPorts(id string, ports []cni.HostPort) error {
	for _, other := range s.attachments {
		if p, ok := cni.Overlap(ports, other.HostPorts); ok && other.ID() != id {
			return types.NewError(cni.CodeHostPortTaken, fmt.Sprintf("host port %s is taken", p),
				fmt.Sprintf("by pod %s/%s", other.PodNamespace, other.PodName))
		}
	}
	return nil
}

// claim takes addresses that another plugin gave. They could also be somebody's who wants to be
// governed as a pod, or not to be. The caller holds mu.
func (s *Server) claim(addrs []netip.Addr) error {
	invalid := func(addr netip.Addr, reason string) error {
		return types.NewError(types.ErrInvalidNetworkConfig,
			"prevResult gives the pod an address that can't be a pod's",
			fmt.Sprintf("%s %s", addr, reason))
	}
	for _, addr := range addrs {
		isOf := func(prefix netip.Prefix) bool { return prefix.Addr().Is4() == addr.Is4() }
		contains := func(prefix netip.Prefix) bool { return prefix.Contains(addr) }
		switch {
		case slices.Contains(s.nodeAddrs, addr):
			return invalid(addr, "is the node's own")
		case slices.ContainsFunc(s.addresses.prefixes, isOf) &&
			!slices.ContainsFunc(s.addresses.prefixes, contains):
			return invalid(addr, fmt.Sprintf("isn't in the node's podCIDRs %s",
				s.addresses.prefixes))
		}
		for _, other := range s.attachments {
			if slices.Contains(other.Addresses, addr) {
				return tryAgain("the pod's address is still another's",
					fmt.Errorf("%s is of pod %s/%s", addr, other.PodNamespace, other.PodName))
			}
		}
	}
	for _, addr := range addrs {
		s.addresses.claim(addr)
	}
	return nil
}

// noteExhaustion reports that there is no address left, once.
func (s *Server) noteExhaustion(err error) {
	isExhausted := errors.Is(err, errExhausted)
	s.mu.Lock()
	isNews := isExhausted && !s.exhausted
	s.exhausted = isExhausted || s.exhausted && err != nil
	s.mu.Unlock()
	if isNews {
		s.opts.OnProblem("AddressPoolExhausted", err.Error())
	}
}

func (s *Server) answer(a cni.Attachment) cni.AddAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := cni.AddAnswer{
		Interface: a.Interface,
		HostMAC:   a.HostMAC().String(),
		PodMAC:    a.PodMAC().String(),
		MTU:       a.MTU,
	}
	for _, addr := range a.Addresses {
		answer.Addresses = append(answer.Addresses, cni.SingleHost(addr))
		isSameFamily := func(of netip.Addr) bool { return of.Is4() == addr.Is4() }
		if i := slices.IndexFunc(s.nodeAddrs, isSameFamily); i >= 0 {
			answer.NodeAddresses = append(answer.NodeAddresses, s.nodeAddrs[i])
		}
	}
	return answer
}
