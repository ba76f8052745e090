package podlink

import (
	"errors"
	"fmt"

	"github.com/sluice-net/sluice/link"
)

// hostDifferences says what the host end lacks of its description, a line each, in the order in
// which a Keeper restores it. It may have more. An empty Alias stands for any. The calling thread
// is in the node's namespace.
func hostDifferences(w Wiring) ([]string, error) {
	k, err := link.Open(link.ProcSys)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	now, err := k.LookAt(w.HostName)
	if errors.Is(err, link.ErrNoLink) {
		return []string{fmt.Sprintf("host: %s is missing", w.HostName)}, nil
	}
	if err != nil {
		return nil, err
	}
	if w.Alias == "" {
		w.Alias = now.Alias
	}
	ops, err := hostOps(k, w, now)
	if err != nil {
		return nil, fmt.Errorf("reading what %s has: %w", w.HostName, err)
	}
	var lines []string
	for _, text := range lacksOfLink(now, ops) {
		lines = append(lines, fmt.Sprintf("host: %s %s", w.HostName, text))
	}
	return lines, nil
}

// hostOps is what a Keeper would do to a link that it looks after.
func hostOps(k *link.Kernel, w Wiring, now link.Found) ([]link.Op, error) {
	seen, err := look(k, func() error { return nil }) // one link is enough
	if err != nil {
		return nil, err
	}
	desired := w.hostEnd(now, seen.isLocal)
	actual, err := seen.hostEnds(desired, map[string]phase{now.Name: settled})
	if err != nil {
		return nil, err
	}
	desired = hostInputs{nodeAddrs: w.NodeAddrs}.keepUnknown(desired, actual)
	return link.Diff(desired, actual, nil), nil
}

// lacksOfLink says in words what changes would bring; removals bring nothing.
func lacksOfLink(now link.Found, ops []link.Op) (lines []string) {
	if now.Up && !now.Carrier {
		lines = append(lines, "is not up")
	}
	for _, op := range ops {
		switch want := op.Next.(type) {
		case hostLink:
			lines = append(lines, lacksOfHostLink(hostLinkOf(now), want)...)
		case link.Sysctl:
			lines = append(lines, fmt.Sprintf("has %s of %s at %d, want %d", want.Name, want.Family,
				op.Now[0].(link.Sysctl).Value, want.Value))
		case link.Address:
			lines = append(lines, fmt.Sprintf("lacks the address %s", want.Prefix))
		case link.Neighbour:
			lines = append(lines, fmt.Sprintf("lacks the permanent neighbour %s with %s", want.Addr,
				want.MAC))
		case link.Route:
			lines = append(lines, lacksOfRoute(want, op.Now))
		}
	}
	return lines
}

func lacksOfHostLink(now, want hostLink) (lines []string) {
	if now.mac != want.mac {
		lines = append(lines, fmt.Sprintf("has the MAC %s, want %s", now.mac, want.mac))
	}
	if now.mtu != want.mtu {
		lines = append(lines, fmt.Sprintf("has the MTU %d, want %d", now.mtu, want.mtu))
	}
	if !now.up {
		lines = append(lines, "is not up")
	}
	if !now.noARP {
		lines = append(lines, "has ARP on, want it off")
	}
	if now.alias != want.alias {
		lines = append(lines, fmt.Sprintf("has the alias %q, want %q", now.alias, want.alias))
	}
	return lines
}

// lacksOfRoute tells a route that isn't there from one that isn't as it should be.
func lacksOfRoute(want link.Route, now []link.Item) string {
	for _, is := range now {
		if is.Device() == want.Link {
			return fmt.Sprintf("has another route to %s, want that of: %s", want.To, want.Add())
		}
	}
	return fmt.Sprintf("lacks the route to %s", want.To)
}
