package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-net/sluice/cni"
)

// del gives up a pod's place. Its answer comes when the pod's link is down. That the rules, the
// addresses and the link itself go takes longer, and nobody has to wait for it: an ADD that needs
// what they hold does.
func (s *Server) del(ctx context.Context, request cni.DelRequest) (cni.DelAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.addTimeout)
	defer cancel()
	// runtimes like to call twice
	if a, leaves := s.leaver(cni.AttachmentID(request.ContainerID, request.IfName)); leaves {
		isCut, err := s.cutLink(a)
		return cni.DelAnswer{IsCut: isCut}, err
	}
	unlock, err := s.busy.lock(ctx, cni.AttachmentID(request.ContainerID, request.IfName))
	if err != nil {
		return cni.DelAnswer{}, tryAgain("another request for the same attachment is under way",
			err)
	}
	isCut, finish := s.leave(request)
	s.inBackground(func() {
		defer unlock()
		finish()
	})
	return cni.DelAnswer{IsCut: isCut}, nil
}

// leave ends a pod's traffic, and returns what finishes its DEL. The caller holds the attachment's
// lock, also for that. A record that can't be removed is no reason to let it live: its addresses
// stay taken.
func (s *Server) leave(request cni.DelRequest) (isCut bool, finish func()) {
	id := cni.AttachmentID(request.ContainerID, request.IfName)
	a, known, err := s.startLeaving(request.ContainerID, request.IfName)
	if !known {
		if err != nil {
			s.opts.Log.Error(err, "A file in the place of a record is left", "attachment", id)
		}
		return false, func() {}
	}
	isCut, err = s.cutLink(a)
	if err != nil {
		s.opts.Log.Error(err, "The plugin has to remove the link", "attachment", id)
	}
	finish = func() {
		ctx, cancel := context.WithTimeout(s.life, undoTimeout)
		defer cancel()
		if err := s.drop(ctx, id, used); err != nil && !errors.Is(err, errRecordStays) &&
			s.life.Err() == nil {
			s.opts.Log.Error(err, "What a DEL left is tried again later", "attachment", id)
		}
	}
	return isCut, finish
}

// startLeaving removes an attachment's record: for the next server it is none. For this one it is
// one that leaves, until it is forgotten; also if its record stays, which is then the error. The
// caller holds the attachment's lock.
func (s *Server) startLeaving(
	containerID, ifName string,
) (a cni.Attachment, known bool, err error) {
	id := cni.AttachmentID(containerID, ifName)
	s.mu.Lock()
	a, known = s.attachments[id]
	if _, leaves := s.leaving[id]; known && !leaves {
		s.leaving[id] = &leaver{done: make(chan struct{})}
	}
	s.mu.Unlock()
	s.keepHostEnds() // no longer this one
	return a, known, s.removeRecord(containerID, ifName)
}

// leaver is what is known of an attachment that leaves. mu guards it.
type leaver struct {
	done      chan struct{} // closed when it is forgotten
	hasRecord bool          // it couldn't be removed
	isOut     bool          // nothing else of it is left
}

// leaver returns the attachment if its DEL is answered and isn't done.
func (s *Server) leaver(id string) (a cni.Attachment, leaves bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, leaves = s.leaving[id]
	return s.attachments[id], leaves
}

// inBackground runs f while the server runs, and Run doesn't return before it is done.
func (s *Server) inBackground(f func()) {
	s.mu.Lock()
	isStopped := s.isStopped
	if !isStopped {
		s.background.Go(f)
	}
	s.mu.Unlock()
	if isStopped {
		f()
	}
}

// usage says whether a pod may have used its addresses.
type usage bool

const (
	used   usage = true
	unused usage = false
)

// drop takes an attachment out of the enforcement, and then forgets it: in this order, so that no
// address is another pod's before. The caller holds the attachment's lock. One that isn't known is
// no error. After an error it still leaves, and the reaper tries again.
func (s *Server) drop(ctx context.Context, id string, addresses usage) error {
	containerID, ifName, _ := strings.Cut(id, "/")
	a, known, stays := s.startLeaving(containerID, ifName)
	if !known {
		return stays
	}
	isOut := s.isOut(id) // if so, only the record was left
	if !isOut {
		if err := s.takeOut(ctx, a); err != nil {
			return err
		}
	}
	if stays == nil {
		s.forget(a, addresses)
	}
	if !isOut {
		s.clear(a)
	}
	return stays
}

// takeOut takes an attachment out of the enforcement, and what the kernel remembers of its
// addresses and host ports.
func (s *Server) takeOut(ctx context.Context, a cni.Attachment) error {
	if _, err := s.cutLink(a); err != nil {
		return err
	}
	if err := s.opts.Enforcer.Detach(ctx, a.ID()); err != nil {
		return fmt.Errorf("detaching %s: %w", a.ID(), err)
	}
	if len(a.HostPorts) > 0 {
		if err := s.inHost(func() error { return forgetHostPorts(a.HostPorts) }); err != nil {
			return err
		}
	}
	return s.connections.forget(a.Addresses)
}

// clear removes the link of an attachment that was taken out. If its record stays, all else is done
// then.
func (s *Server) clear(a cni.Attachment) {
	if err := s.removeLink(a); err != nil {
		s.opts.Log.Error(err, "A link that is down is left", "attachment", a.ID())
		return
	}
	s.opts.Log.V(1).Info("Detached", "namespace", a.PodNamespace, "pod", a.PodName, "attachment",
		a.ID())
	s.mu.Lock()
	defer s.mu.Unlock()
	if leaver := s.leaving[a.ID()]; leaver != nil {
		leaver.isOut = true
	}
}

func (s *Server) isOut(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	leaver := s.leaving[id]
	return leaver != nil && leaver.isOut
}

func (s *Server) dropAndUnlock(ctx context.Context, id string, unlock func()) error {
	defer unlock() // also after a panic
	return s.drop(ctx, id, used)
}

func (s *Server) forget(a cni.Attachment, addresses usage) {
	s.mu.Lock()
	close(s.leaving[a.ID()].done)
	delete(s.leaving, a.ID())
	s.remove(a, addresses)
	s.mu.Unlock()
	// In memory they are free. If this fails, they are found without a record after a restart, and
	// cool down once more.
	_ = s.writeLedger() // it is noted, and tried again
}

// remove takes an attachment out of what is known, and gives its addresses back. The caller holds
// mu.
func (s *Server) remove(a cni.Attachment, addresses usage) {
	delete(s.attachments, a.ID())
	delete(s.placed, a.ID())
	delete(s.seen, a.ID())
	for _, addr := range a.Addresses {
		if addresses == used {
			s.addresses.release(addr, s.opts.Now())
		} else {
			s.addresses.giveBack(addr)
		}
	}
}

// undo drops an attachment whose ADD failed. If that fails too, it is tried again later.
func (s *Server) undo(ctx context.Context, a cni.Attachment, isNew bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	addresses := used
	if isNew && !a.PolicyOnly {
		addresses = unused // it never had a link
	}
	if err := s.drop(ctx, a.ID(), addresses); err != nil && !errors.Is(err, errRecordStays) {
		s.opts.Log.Error(err, "What a failed ADD left is tried again later", "attachment", a.ID())
	}
}
