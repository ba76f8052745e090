package podlink

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/link"
)

// PodsWithLinks names the pods that have a link in the network namespace of the calling thread, as
// namespace/name where an attachment or the link says it, sorted. A link that is down and none of
// the attachments' isn't a pod's any more: its DEL was cut short.
func PodsWithLinks(attachments []cni.Attachment) ([]string, error) {
	host, err := link.Open(link.ProcSys)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	if err := host.Look(); err != nil {
		return nil, err
	}
	recorded := map[string]cni.Attachment{}
	for _, a := range attachments {
		recorded[a.Interface] = a
	}
	var pods []string
	for name, found := range host.Links() {
		a, isRecorded := recorded[name]
		isRecorded = isRecorded && link.MAC(a.HostMAC()) == found.MAC
		switch {
		case !cni.IsInterfaceName(name) || found.Type == ifb || !found.Up && !isRecorded:
		case isRecorded:
			pods = append(pods, a.PodNamespace+"/"+a.PodName)
		case found.Alias != "":
			pods = append(pods, found.Alias)
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
	host, err := link.Open(link.ProcSys)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := host.Look(); err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(host.Links())) {
		if isOurs(name) {
			errs = append(errs, deleteLink(host, name, nil))
		}
	}
	seen, err := look(host, host.Look) // routes without a link: the others went with theirs
	errs = append(errs, err)
	for _, r := range seen.routes {
		route := host.RouteOf(r)
		if err := route.Drop(host); err != nil && !link.IsGone(err) {
			errs = append(errs, fmt.Errorf("removing the route to %s: %w", route.To, err))
		}
	}
	return errors.Join(errs...)
}
