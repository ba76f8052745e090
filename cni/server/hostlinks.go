package server

import (
	"context"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
)

// The server's side of the pods' links. Removing one takes long, and setting it down doesn't. So a
// DEL sets it down, which ends the pod's traffic for good, and it is removed after the answer.

// cutLink sets the attachment's link down, and tells whether it did. A link with another
// attachment's MAC isn't the attachment's.
func (s *Server) cutLink(a cni.Attachment) (isCut bool, err error) {
	if a.PolicyOnly {
		return false, nil
	}
	err = s.inHost(func() (err error) {
		isCut, err = podlink.Cut(a.Interface, a.HostMAC())
		return err
	})
	return isCut, err
}

// removeLink deletes the attachment's link, if there is one.
func (s *Server) removeLink(a cni.Attachment) error {
	if a.PolicyOnly {
		return nil
	}
	return s.inHost(func() error { return podlink.Delete(a.Interface, a.HostMAC()) })
}

func (s *Server) hostLinks() (links []podlink.Link, err error) {
	err = s.inHost(func() (err error) { links, err = podlink.List(); return err })
	return links, err
}

// inHost runs f on a thread in the network namespace of the pods' host ends.
func (s *Server) inHost(f func() error) error {
	if s.opts.NetNS == nil {
		return f()
	}
	return s.opts.NetNS.Do(func(ns.NetNS) error { return f() })
}

// keepHostEnds says which host ends there are to be: not those of pods that leave.
func (s *Server) keepHostEnds() {
	if s.opts.PolicyOnly {
		return
	}
	s.reporting.Lock() // so that what is told last is what holds
	defer s.reporting.Unlock()
	attachments := s.Attachments()
	s.mu.Lock()
	nodeAddrs, prefixes := s.nodeAddrs, s.podCIDRs
	if len(prefixes) == 0 {
		prefixes = s.addresses.prefixes
	}
	s.mu.Unlock()
	s.hostEnds.Set(attachments, nodeAddrs, prefixes)
}

// KeepHostEnds puts right what others do to the pods' host ends, until ctx ends, and then returns
// nil. It tries again when they can't be looked after, which only costs what they are good for.
func (s *Server) KeepHostEnds(ctx context.Context) error {
	if s.opts.PolicyOnly {
		return nil
	}
	const pause = 5 * time.Second
	retry := time.NewTicker(pause)
	defer retry.Stop()
	for ctx.Err() == nil {
		if err := s.hostEnds.Run(ctx); err != nil {
			s.opts.Log.Error(err, "Pods' links don't heal", "nextTry", pause.String())
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
	return nil
}
