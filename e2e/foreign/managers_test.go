package foreign

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/internal/names"
)

// manager is a daemon that sets up a node's links unless it is told to leave them alone.
type manager struct {
	name string
	// files are its configuration, by their path: it looks after all links but eth0.
	files map[string]string
	// dropIn is where the agent's file is below /run.
	dropIn string
	// folder is one that its service has made for a user, or empty.
	folder, user string
	daemon       []string
	reload       []string
	// release has it leave a link alone that it took before it read the agent's file; nil: it does.
	release func(link string) []string
	// list prints a line for each link, which has the link's name in a column, and whether it is
	// unmanaged.
	list   []string
	column int
}

var managers = []manager{
	{
		name: "systemd-networkd",
		files: map[string]string{
			"etc/systemd/network/10-eth0.network": "[Match]\nName=eth0\n[Link]\nUnmanaged=yes\n",
			"etc/systemd/network/99-all.network": "[Match]\nName=*\n[Network]\n" +
				"Address=192.0.2.77/32\nLinkLocalAddressing=no\n",
		},
		dropIn: "systemd/network/05-sluice.network",
		folder: "/run/systemd/netif", user: "systemd-network",
		daemon: []string{"/lib/systemd/systemd-networkd"},
		reload: []string{"networkctl", "reload"},
		list:   []string{"networkctl", "list", "--no-legend", "--no-pager"}, column: 1,
	},
	{
		name: "NetworkManager",
		// This list replaces those of files that are read before, as the agent's.
		files: map[string]string{"etc/NetworkManager/conf.d/eth0.conf": "[keyfile]\n" +
			"unmanaged-devices=interface-name:eth0\n"},
		dropIn: "NetworkManager/conf.d/05-sluice.conf",
		daemon: []string{"NetworkManager", "--no-daemon"},
		reload: []string{"nmcli", "general", "reload"},
		release: func(link string) []string {
			return []string{"nmcli", "device", "set", link, "managed", "no"}
		},
		list: []string{"nmcli", "--terse", "--fields", "DEVICE,STATE", "device"},
	},
}

// ordinary is a link like a pod's, but for its name: a veth.
const ordinary = "ordinary0"

// TestNetworkManagers: beside daemons that look after every link of a node, pods reach each other.
// Once a daemon has read the agent's file, and has let go of what it took before, it leaves our
// links alone, also new ones, and after it has started anew.
func TestNetworkManagers(t *testing.T) {
	debian := needDebian(t)
	run := t.TempDir() // where agents write for daemons that have a folder
	for _, daemon := range []string{"systemd", "NetworkManager"} {
		must(t, os.Mkdir(filepath.Join(run, daemon), 0o755))
	}
	w := newLab(t, "managers", lab.Options{Nodes: len(managers),
		AgentArgs: []string{"--run-dir=" + run}})
	w.namespaces("shop")
	flows := w.pair("early")
	w.allowed(flows...)
	for i, node := range w.Nodes() {
		m := managers[i]
		t.Run(m.name, func(t *testing.T) {
			w := inLab(t, w.Lab)
			s := w.boot(node, debian)
			for path, content := range m.files {
				s.write(path, content)
			}
			if m.folder != "" {
				s.run("install", "-d", "-o", m.user, "-g", m.user, m.folder+"/links",
					m.folder+"/leases", m.folder+"/lldp")
			}
			w.addOrdinary(node)
			stop := s.start(m.daemon...)
			w.takes(s, m, true)
			flows = append(flows, w.pair("unaware-"+node.Name())...)
			w.allowed(flows...)

			dropIn, err := os.ReadFile(filepath.Join(run, m.dropIn))
			must(t, err)
			s.write(filepath.Join("run", m.dropIn), string(dropIn))
			s.run(m.reload...)
			if m.release != nil {
				stop()
				stop = s.start(m.daemon...)
				w.takes(s, m, true) // still
				links, err := m.taken(s)
				must(t, err)
				for _, link := range slices.DeleteFunc(links, isNotOurs) {
					s.run(m.release(link)...)
				}
			}
			w.takes(s, m, false)
			for _, round := range []string{"aware", "anew"} {
				flows = append(flows, w.pair(round+"-"+node.Name())...)
				w.allowed(flows...)
				links, err := m.taken(s)
				must(t, err)
				if !slices.Contains(links, ordinary) || slices.Contains(links, "eth0") ||
					slices.ContainsFunc(links, isOurs) {
					t.Errorf("%s, %s: takes %q", m.name, round, links)
				}
				stop()
				stop = s.start(m.daemon...)
				w.takes(s, m, false)
			}
		})
	}
}

// pair makes a pod on each of two nodes, and returns their connections with each other.
func (w *world) pair(name string) []flow {
	w.t.Helper()
	var pods []string
	for _, node := range w.Nodes() {
		pods = append(pods, "shop/"+name+"-on-"+node.Name())
		w.create(pod(pods[len(pods)-1], node.Name(), nil, nil))
	}
	return []flow{tcp(pods[0], pods[1], 80), tcp(pods[1], pods[0], 80)}
}

// addOrdinary makes the ordinary link on a node, up at both ends.
func (w *world) addOrdinary(node *lab.Node) {
	w.t.Helper()
	must(w.t, node.Do(func() error {
		peer := ordinary + "p"
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: ordinary},
			PeerName: peer})
		for _, name := range []string{ordinary, peer} {
			link, findErr := netlinksafe.LinkByName(name)
			if err = errors.Join(err, findErr); err == nil {
				err = netlink.LinkSetUp(link)
			}
		}
		return err
	}))
}

// takes waits until the daemon has the ordinary link, and some of ours or none.
func (w *world) takes(s *system, m manager, ours bool) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s to take %s, and ours: %t", m.name, ordinary, ours), func() bool {
		links, err := m.taken(s) // an error: it has just started
		return err == nil && slices.Contains(links, ordinary) &&
			slices.ContainsFunc(links, isOurs) == ours
	})
}

// taken lists the links that the daemon has made its own.
func (m *manager) taken(s *system) ([]string, error) {
	out, err := s.try(m.list...)
	var links []string
	for line := range strings.Lines(out) {
		words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ':' })
		if !strings.Contains(line, "unmanaged") {
			links = append(links, words[m.column])
		}
	}
	return links, err
}

// isOurs reports whether a link's name is one that Sluice gives.
func isOurs(link string) bool {
	return slices.ContainsFunc(
		[]string{names.PodLink, names.ShapingLink, names.TrialLink, names.Tunnel},
		func(begin string) bool { return strings.HasPrefix(link, begin) })
}

func isNotOurs(link string) bool { return !isOurs(link) }
