package podlink

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
)

// PodsWithLinks names the pods that have a link in the network namespace of the calling thread, as
// namespace/name where an attachment or the link says it, sorted. A link that is down and none of
// the attachments' isn't a pod's any more: its DEL was cut short.
func PodsWithLinks(attachments []cni.Attachment) ([]string, error) {
	links, err := podLinksHere()
	if err != nil {
		return nil, err
	}
	recorded := map[string]cni.Attachment{}
	for _, a := range attachments {
		recorded[a.Interface] = a
	}
	var pods []string
	for name, link := range links {
		a, isRecorded := recorded[name]
		isRecorded = isRecorded && macAddr(a.HostMAC()) == link.mac
		switch {
		case link.isIFB || isShapeName(name) || !link.up && !isRecorded:
		case isRecorded:
			pods = append(pods, a.PodNamespace+"/"+a.PodName)
		case link.alias != "":
			pods = append(pods, link.alias)
		default:
			pods = append(pods, name)
		}
	}
	slices.Sort(pods)
	return pods, nil
}

// RemoveAll removes, from the network namespace of the calling thread, all pods' links, whether the
// pods live or not, their shaping devices, and the routes to pods.
func RemoveAll() error {
	host, err := openSpace()
	if err != nil {
		return err
	}
	defer host.Close()
	links, err := podLinksHere()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(links)) {
		errs = append(errs, host.deleteLink(name, nil))
	}
	routes, err := host.ourRoutes() // those without a link: the others went with theirs
	errs = append(errs, err)
	for _, r := range routes {
		errs = append(errs, host.deleteRoute(r))
	}
	return errors.Join(errs...)
}

func (s space) deleteRoute(r netlink.Route) error {
	err := s.RouteDel(&netlink.Route{
		Dst: r.Dst, Priority: r.Priority, Tos: r.Tos, Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_NOWHERE,
	})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("removing the route to %s: %w", r.Dst, err)
	}
	return nil
}
