package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The server's side of the pods' links. Removing a link takes the kernel some 15 ms, most of which is waiting for readers elsewhere;
// setting it down takes 0.1 ms. So a DEL sets it down, which ends the pod's traffic for good, and it is removed after the answer.

// cutLink sets the attachment's link down, and tells whether it did. A link with another attachment's MAC isn't the attachment's.
func (s *Server) cutLink(a Attachment) (isCut bool, err error) {
	if a.PolicyOnly {
		return false, nil
	}
	err = s.inHost(func() error {
		host, err := openSpace()
		if err != nil {
			return err
		}
		defer host.Close()
		isCut, err = host.setLinkDown(a.Interface, a.HostMAC())
		return err
	})
	return isCut, err
}

// removeLink deletes the attachment's link, if there is one.
func (s *Server) removeLink(a Attachment) error {
	if a.PolicyOnly {
		return nil
	}
	return s.inHost(func() error { return deleteHostLink(a.Interface, a.HostMAC()) })
}

// setLinkDown tells whether there is a link with this name and MAC, which is down then.
func (s space) setLinkDown(name string, mac net.HardwareAddr) (bool, error) {
	link, err := s.LinkByName(name)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for link %s: %w", name, err)
	}
	if !bytes.Equal(link.Attrs().HardwareAddr, mac) {
		return false, nil
	}
	err = s.LinkSetDown(link)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("setting link %s down: %w", name, err)
	}
	return true, nil
}

// nodeLink is a link of the node whose name says that it is a pod's.
type nodeLink struct {
	name string
	mac  string
	isUp bool
}

func (s *Server) hostLinks() (links []nodeLink, err error) {
	err = s.inHost(func() error {
		host, err := openSpace()
		if err != nil {
			return err
		}
		defer host.Close()
		all, err := host.LinkList()
		if err != nil {
			return fmt.Errorf("listing the node's links: %w", err)
		}
		for _, link := range all {
			of := link.Attrs()
			if strings.HasPrefix(of.Name, InterfacePrefix) {
				links = append(links, nodeLink{of.Name, of.HardwareAddr.String(), of.Flags&net.FlagUp != 0})
			}
		}
		return nil
	})
	return links, err
}

// inHost runs f on a thread in the network namespace of the pods' host ends.
func (s *Server) inHost(f func() error) error {
	switch {
	case s.opts.withoutKernel:
		return nil
	case s.opts.NetNS == nil:
		return f()
	default:
		return s.opts.NetNS.Do(func(ns.NetNS) error { return f() })
	}
}

// keepHostEnds says which host ends there are to be: not those of pods that leave.
func (s *Server) keepHostEnds() {
	if s.opts.PolicyOnly {
		return
	}
	s.telling.Lock() // so that what is told last is what holds
	defer s.telling.Unlock()
	attachments := s.Attachments()
	s.mu.Lock()
	nodeAddrs, prefixes := s.nodeAddrs, s.addresses.prefixes
	s.mu.Unlock()
	s.hostEnds.set(attachments, nodeAddrs, prefixes)
}

// runHostEnds tries again when host ends can't be looked after, which only costs what they are good for.
func (s *Server) runHostEnds(ctx context.Context) {
	const pause = 5 * time.Second
	retry := time.NewTicker(pause)
	defer retry.Stop()
	for ctx.Err() == nil {
		if err := s.hostEnds.run(ctx); err != nil {
			s.opts.Log.Error(err, "Pods' links don't heal", "nextTry", pause.String())
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
}
