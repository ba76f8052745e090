package server

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
)

// addGrace is how long after its ADD began an attachment may have no link yet: longer than a plugin
// takes, with what it undoes.
const addGrace = 60 * time.Second

// Reap drops what no DEL came for: runtimes lose some, and most never call GC. These are
// attachments whose record a plugin removed because we didn't answer, those whose pod is gone at
// the second look, and links of DELs that nobody finished. It is to be called now and then.
func (s *Server) Reap(ctx context.Context) {
	for _, a := range s.unfinished() {
		s.reapIf(ctx, a, "its DEL wasn't finished", func(a cni.Attachment) bool {
			_, leaves := s.leaver(a.ID())
			return leaves
		})
	}
	for _, a := range s.Attachments() {
		s.reapIf(ctx, a, "its record is gone", s.records.IsGone)
	}
	links, err := s.hostLinks()
	if err != nil {
		s.opts.Log.Error(err, "It isn't known which pods are gone")
		return
	}
	s.reapGone(ctx, links)
}

// reapGone drops what these links, which are all that pods have on the node, show to be gone as
// they did before.
func (s *Server) reapGone(ctx context.Context, links []podlink.Link) {
	goneNow := map[string]bool{}
	for _, a := range s.Attachments() {
		if s.isPodGone(a, links) {
			goneNow[a.ID()] = true
			if s.wasGoneBefore(a.ID()) {
				s.reapIf(ctx, a, "its pod is gone", func(a cni.Attachment) bool {
					return s.isPodGone(a, links)
				})
			}
		}
	}
	for _, link := range links {
		if s.isLeftOver(link) {
			goneNow[link.MAC] = true
			if s.wasGoneBefore(link.MAC) {
				s.removeLeftOver(link)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goneBefore = goneNow
}

// unfinished are the attachments that leave.
func (s *Server) unfinished() []cni.Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []cni.Attachment
	for _, id := range slices.Sorted(maps.Keys(s.leaving)) {
		all = append(all, s.attachments[id])
	}
	return all
}

func (s *Server) wasGoneBefore(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.goneBefore[name]
}

// reapIf drops an attachment if it is true of it that it should go, also with its lock held.
func (s *Server) reapIf(
	ctx context.Context, a cni.Attachment, reason string, isTrue func(cni.Attachment) bool,
) {
	if !isTrue(a) {
		return
	}
	unlock, _ := s.busy.tryLock(a.ID())
	if unlock == nil {
		return // whoever works on it knows better
	}
	if !isTrue(a) { // it went and came back until we had the lock
		unlock()
		return
	}
	err := s.dropAndUnlock(ctx, a.ID(), unlock)
	if errors.Is(err, errRecordStays) {
		return // which is reported
	}
	if err != nil {
		s.opts.Log.Error(err, "An attachment without a DEL can't be dropped yet", "reason", reason,
			"attachment", a.ID())
		return
	}
	s.opts.Log.Info("Dropped an attachment without a DEL", "reason", reason, "attachment", a.ID(),
		"namespace", a.PodNamespace, "pod", a.PodName)
}

// isPodGone tells whether nothing is left of an attachment's pod. When in doubt it isn't: a pod
// that lives must never lose its place. The link's absence is the main evidence, as it goes with
// the pod's network namespace. The namespace itself may be out of our sight; then its absence says
// nothing.
func (s *Server) isPodGone(a cni.Attachment, links []podlink.Link) bool {
	isThere, err := s.seesNamespace(a)
	if isThere || err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.PolicyOnly {
		return s.seen[a.ID()] // there is no link of ours to miss
	}
	mac := a.HostMAC().String()
	isIts := func(link podlink.Link) bool { return link.Name == a.Interface && link.MAC == mac }
	return !slices.ContainsFunc(links, isIts) && s.opts.Now()-s.placed[a.ID()] > addGrace
}

// isLeftOver tells whether a link is of a DEL whose server died before it removed the link: it is
// down, and nobody's.
func (s *Server) isLeftOver(link podlink.Link) bool {
	if link.IsUp {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.attachments {
		if a.HostMAC().String() == link.MAC {
			return false
		}
	}
	return true
}

func (s *Server) removeLeftOver(link podlink.Link) {
	err := s.inHost(func() error {
		mac, err := net.ParseMAC(link.MAC)
		if err != nil {
			return err
		}
		return podlink.Delete(link.Name, mac)
	})
	if err != nil {
		s.opts.Log.Error(err, "A link that nobody uses can't be removed", "link", link.Name)
	}
}

// seesNamespace tells whether the attachment's network namespace is where its ADD said. That it was
// once shows that we can see it.
func (s *Server) seesNamespace(a cni.Attachment) (bool, error) {
	inode, err := namespaceInode(a.Netns)
	if err != nil || inode == 0 {
		return false, err
	}
	if a.NetnsInode == 0 {
		return true, nil // we can't tell it from another one
	}
	if inode != a.NetnsInode {
		return false, nil // the path is another pod's now, or never led to the pod's from here
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[a.ID()] = true
	return true, nil
}

// namespaceInode tells the namespace at a path from others, or is 0 where there is none.
func namespaceInode(path string) (uint64, error) {
	if path == "" {
		return 0, nil
	}
	var filesystem unix.Statfs_t
	var file unix.Stat_t
	err := errors.Join(unix.Statfs(path, &filesystem), unix.Stat(path, &file))
	if errors.Is(err, fs.ErrNotExist) || err == nil && filesystem.Type != unix.NSFS_MAGIC {
		return 0, nil // an empty file is left of an unmounted one
	}
	return file.Ino, err
}
