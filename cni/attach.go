package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// add gives a pod its place: addresses, a record, and its policy in the kernel, in this order. When it fails, all of it is undone.
func (s *Server) add(ctx context.Context, request AddRequest) (AddAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.AddTimeout)
	defer cancel()
	id := AttachmentID(request.ContainerID, request.IfName)
	unlock, err := s.busy.lock(ctx, id)
	if err != nil {
		return AddAnswer{}, tryAgain("another request for the same attachment is under way", err)
	}
	defer unlock()
	if err := s.supersede(ctx, request); err != nil {
		return AddAnswer{}, err
	}
	a, isNew, err := s.place(request)
	if err != nil {
		return AddAnswer{}, err
	}
	attached := false
	defer func() {
		if !attached { // also after a panic
			s.undo(ctx, a, isNew)
		}
	}()
	if err := s.opts.Enforcer.Attach(ctx, a); err != nil {
		return AddAnswer{}, attachError(a, err)
	}
	if err := ctx.Err(); err != nil {
		// The plugin is gone, and DEL may have been before us.
		return AddAnswer{}, attachError(a, err)
	}
	attached = true
	s.opts.Log.V(1).Info("Attached", "namespace", a.PodNamespace, "pod", a.PodName, "attachment", id, "addresses", a.Addresses)
	return s.answer(a), nil
}

// attachError tells the runtime to try again, unless the enforcer knows better.
func attachError(a Attachment, err error) error {
	if known := new(types.Error); errors.As(err, &known) {
		return known
	}
	return tryAgain(fmt.Sprintf("the policy of pod %s/%s isn't in the kernel yet", a.PodNamespace, a.PodName), err)
}

func tryAgain(message string, cause error) error {
	return types.NewError(types.ErrTryAgainLater, message, cause.Error())
}

// supersede drops the attachments of older sandboxes of the same pod, whose link the plugin has removed to make room.
func (s *Server) supersede(ctx context.Context, request AddRequest) error {
	name := InterfaceName(request.PodNamespace, request.PodName, request.IfName)
	for _, old := range s.Attachments() {
		if old.Interface != name || old.ContainerID == request.ContainerID {
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

// place returns the attachment that is on record, or else makes a new one.
func (s *Server) place(request AddRequest) (a Attachment, isNew bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, isOld := s.attachments[AttachmentID(request.ContainerID, request.IfName)]
	if isOld {
		if a.PodNamespace != request.PodNamespace || a.PodName != request.PodName || a.PodUID != request.PodUID {
			return Attachment{}, false, types.NewError(types.ErrInvalidEnvironmentVariables, "the container is of another pod",
				fmt.Sprintf("%s/%s with UID %s", a.PodNamespace, a.PodName, a.PodUID))
		}
		a.MTU = s.mtu
		if err := s.records.write(a); err != nil {
			return Attachment{}, false, err
		}
		s.attachments[a.ID()] = a
		return a, false, nil
	}
	addrs, err := s.addresses.allocate(s.opts.Now())
	if err != nil {
		return Attachment{}, false, tryAgain("no address for the pod", err)
	}
	a = Attachment{
		ContainerID: request.ContainerID, IfName: request.IfName,
		PodNamespace: request.PodNamespace, PodName: request.PodName, PodUID: request.PodUID,
		Interface: InterfaceName(request.PodNamespace, request.PodName, request.IfName),
		Addresses: addrs,
		MTU:       s.mtu,
	}
	if err := errors.Join(s.records.writeLedger(s.addresses.ledger()), s.records.write(a)); err != nil {
		s.free(a, unused)
		return Attachment{}, false, errors.Join(err, s.records.remove(a.ContainerID, a.IfName))
	}
	s.attachments[a.ID()] = a
	return a, true, nil
}

func (s *Server) answer(a Attachment) AddAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := AddAnswer{
		Interface: a.Interface,
		HostMAC:   a.HostMAC().String(),
		PodMAC:    a.PodMAC().String(),
		MTU:       a.MTU,
	}
	for _, addr := range a.Addresses {
		answer.Addresses = append(answer.Addresses, singleHost(addr))
		isSameFamily := func(of netip.Addr) bool { return of.Is4() == addr.Is4() }
		if i := slices.IndexFunc(s.nodeAddrs, isSameFamily); i >= 0 {
			answer.NodeAddresses = append(answer.NodeAddresses, s.nodeAddrs[i])
		}
	}
	return answer
}

// del gives up a pod's place.
func (s *Server) del(ctx context.Context, request DelRequest) (DelAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.AddTimeout)
	defer cancel()
	id := AttachmentID(request.ContainerID, request.IfName)
	unlock, err := s.busy.lock(ctx, id)
	if err != nil {
		return DelAnswer{}, tryAgain("another request for the same attachment is under way", err)
	}
	defer unlock()
	if err := s.drop(ctx, id, used); err != nil {
		return DelAnswer{}, tryAgain("the pod can't be detached", err)
	}
	return DelAnswer{}, nil
}

// usage says whether a pod may have used its addresses.
type usage bool

const (
	used   usage = true
	unused usage = false
)

// drop takes an attachment out of the enforcement, and then forgets it: in this order, so that no address is another pod's before.
// The caller holds the attachment's lock. One that isn't known is no error.
func (s *Server) drop(ctx context.Context, id string, addresses usage) error {
	s.mu.Lock()
	a, known := s.attachments[id]
	s.mu.Unlock()
	if !known {
		return nil
	}
	if err := s.opts.Enforcer.Detach(ctx, id); err != nil {
		return fmt.Errorf("detaching %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.records.remove(a.ContainerID, a.IfName); err != nil {
		return err
	}
	delete(s.attachments, id)
	s.free(a, addresses)
	s.opts.Log.V(1).Info("Detached", "namespace", a.PodNamespace, "pod", a.PodName, "attachment", id)
	return nil
}

func (s *Server) dropAndUnlock(ctx context.Context, id string, unlock func()) error {
	defer unlock() // also after a panic
	return s.drop(ctx, id, used)
}

// free gives the addresses of a forgotten attachment back. The caller holds mu.
func (s *Server) free(a Attachment, addresses usage) {
	for _, addr := range a.Addresses {
		if addresses == used {
			s.addresses.release(addr, s.opts.Now())
		} else {
			s.addresses.giveBack(addr)
		}
	}
	if err := s.records.writeLedger(s.addresses.ledger()); err != nil {
		// In memory they are free. After a restart they are found without a record, and cool down once more.
		s.opts.Log.Error(err, "The ledger of addresses is out of date", "attachment", a.ID())
	}
}

// undo drops an attachment whose ADD failed. If that fails too, the attachment stays known until DEL.
func (s *Server) undo(ctx context.Context, a Attachment, isNew bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	addresses := used
	if isNew {
		addresses = unused // it never had a link
	}
	if err := s.drop(ctx, a.ID(), addresses); err != nil {
		s.opts.Log.Error(err, "What a failed ADD left waits for its DEL", "attachment", a.ID())
	}
}

// status fails while the node should carry no pod at all.
func (s *Server) status(context.Context, StatusRequest) (StatusAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.addresses.prefixes) == 0 {
		return StatusAnswer{}, types.NewError(codeNotAvailable, "the node can't take pods", errNoPodCIDR.Error())
	}
	return StatusAnswer{PodCIDRs: slices.Clone(s.addresses.prefixes), Attachments: len(s.attachments)}, nil
}

// reapUntil drops, now and then, the attachments whose record a plugin removed because we didn't answer.
func (s *Server) reapUntil(ctx context.Context) {
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.reap(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) reap(ctx context.Context) {
	for _, a := range s.Attachments() {
		if !s.records.isGone(a) {
			continue
		}
		unlock, _ := s.busy.tryLock(a.ID())
		if unlock == nil {
			continue // whoever works on it knows better
		}
		if !s.records.isGone(a) { // it went and came back until we had the lock
			unlock()
			continue
		}
		if err := s.dropAndUnlock(ctx, a.ID(), unlock); err != nil {
			s.opts.Log.Error(err, "An attachment without a record can't be detached yet", "attachment", a.ID())
		}
	}
}

// singleHost is the prefix that holds addr alone.
func singleHost(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// has6 tells whether there is an IPv6 address.
func has6(addrs []netip.Addr) bool { return slices.ContainsFunc(addrs, netip.Addr.Is6) }

// podLabel is what people call a pod, cut to what the kernel takes as the alias of a link.
func podLabel(podNamespace, podName string) string {
	const maxAlias = 255 // IFALIASZ without its final zero
	label := podNamespace + "/" + podName
	return strings.Clone(label[:min(len(label), maxAlias)])
}
