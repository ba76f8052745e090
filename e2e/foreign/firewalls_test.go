package foreign

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/lab"
)

// firewall is a program that drops or rejects what a node forwards, unless a rule of its own
// accepts it.
type firewall struct {
	name string
	// start leaves the tunnel's port open, as docs/network.md says.
	start func(*system) (stop func())
	// blocks is what the agent's Event says of it.
	blocks string
	// onlyFirst says that it blocks nothing if the agent is there before it.
	onlyFirst bool
	// anew has commands that write all its rules anew.
	anew [][]string
	// remains has commands that remove what it leaves when it stops.
	remains [][]string
}

// firewalls are those that nodes have, each as its package of Debian sets it up.
var firewalls = []firewall{
	{
		// It drops if it is what has made the node forward.
		name: "Docker", start: startDocker, blocks: "chain FORWARD (policy drop)", onlyFirst: true,
		remains: [][]string{{"iptables", "-P", "FORWARD", "ACCEPT"}, {"iptables", "-F"},
			{"iptables", "-X"}, {"iptables", "-t", "nat", "-F"}, {"iptables", "-t", "nat", "-X"},
			{"ip", "link", "delete", "docker0"}},
	},
	{
		name: "ufw", start: startUfw, blocks: "chain FORWARD (policy drop)",
		anew: [][]string{{"ufw", "reload"}},
	},
	{
		name: "firewalld", start: startFirewalld, blocks: "inet firewalld, chain filter_FORWARD",
		anew: [][]string{{"firewall-cmd", "--reload"}, {"firewall-cmd", "--complete-reload"}},
	},
}

func startDocker(s *system) (stop func()) {
	stop = s.start("dockerd", "--data-root=/run/docker-data", "--exec-root=/run/docker",
		"--storage-driver=vfs")
	s.w.eventually("Docker of "+s.node.Name(), func() bool {
		_, err := s.try("docker", "info")
		return err == nil
	})
	return stop
}

func startUfw(s *system) (stop func()) {
	s.run("ufw", "allow", "8472/udp")
	s.run("ufw", "--force", "enable")
	return func() { s.run("ufw", "disable") }
}

func startFirewalld(s *system) (stop func()) {
	stop = s.start("firewalld", "--nofork", "--nopid")
	s.w.eventually("firewalld of "+s.node.Name(), func() bool {
		_, err := s.try("firewall-cmd", "--state")
		return err == nil
	})
	s.run("firewall-cmd", "--permanent", "--add-port=8472/udp")
	s.run("firewall-cmd", "--reload")
	return stop
}

// TestFirewalls: real firewalls beside our pod network, which come after the agent and before it.
// What blocks pods, as a connection shows, is named. With --forward-accept they get through, also
// when the firewall writes its rules anew, or starts. What policy denies is denied whenever they
// do.
func TestFirewalls(t *testing.T) {
	debian := needDebian(t)
	w := newLab(t, "firewalls", lab.Options{Nodes: 2})
	w.namespaces("shop")
	web := "shop/web"
	w.create(pod(web, w.Nodes()[0].Name(), map[string]string{"app": "web"}, nil))
	var clients, others []flow
	var systems []*system
	for _, node := range w.Nodes() {
		client, other := on(node, "shop/client"), on(node, "shop/other")
		w.create(pod(client, node.Name(), map[string]string{"app": "client"}, nil),
			pod(other, node.Name(), nil, nil))
		clients = append(clients, tcp(client, web, 80))
		others = append(others, tcp(other, web, 80))
		systems = append(systems, w.boot(node, debian))
	}
	for _, f := range firewalls {
		passed := t.Run(f.name, func(t *testing.T) {
			w := &besideFirewall{world: inLab(t, w.Lab), wall: f, clients: clients}
			for _, s := range systems {
				own := *s
				own.w = w.world
				w.systems = append(w.systems, &own)
			}
			w.allowed(slices.Concat(clients, others)...)
			w.apply(toWeb)
			w.denied(others...)

			w.start()
			if f.onlyFirst {
				w.allowed(clients...)
				w.denied(others...)
			} else {
				w.isNamed()
			}

			w.stop()
			w.remove()
			w.killAgents()
			w.start()
			w.startAgents()
			w.isNamed()

			w.killAgents()
			w.startAgents("--forward-accept")
			w.allowed(clients...)
			w.denied(others...)
			for _, command := range f.anew {
				w.run(command)
				w.allowed(clients...)
				w.denied(others...)
			}
			w.stop()
			w.start()
			w.allowed(clients...)
			w.denied(others...)

			w.stop()
			w.remove()
			w.killAgents()
			w.startAgents()
			must(t, w.Delete(t.Context(), toWeb))
			w.allowed(slices.Concat(clients, others)...)
		})
		if !passed {
			return // its rules may still be there
		}
	}
}

// besideFirewall is a lab with a firewall on each node.
type besideFirewall struct {
	*world
	wall    firewall
	systems []*system
	clients []flow   // that no policy denies
	stops   []func() // of what runs
}

func (w *besideFirewall) start() {
	w.t.Helper()
	for _, s := range w.systems {
		w.stops = append(w.stops, w.wall.start(s))
	}
}

func (w *besideFirewall) stop() {
	w.t.Helper()
	for _, stop := range w.stops {
		stop()
	}
	w.stops = nil
}

// remove removes what the firewalls leave when they stop.
func (w *besideFirewall) remove() {
	w.t.Helper()
	for _, command := range w.wall.remains {
		w.run(command)
	}
}

// run runs a command on each node.
func (w *besideFirewall) run(command []string) {
	w.t.Helper()
	for _, s := range w.systems {
		s.run(command...)
	}
}

// killAgents leaves nodes as they boot, in that they don't forward.
func (w *besideFirewall) killAgents() {
	w.t.Helper()
	for _, node := range w.Nodes() {
		node.KillAgent()
	}
	w.run([]string{"sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward; " +
		"echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"})
}

// startAgents starts an agent on each node, with more arguments than usual.
func (w *besideFirewall) startAgents(more ...string) {
	w.t.Helper()
	must(w.t, w.Client().DeleteAllOf(w.t.Context(), &eventsv1.Event{},
		client.InNamespace(metav1.NamespaceDefault)))
	for _, node := range w.Nodes() {
		node.LaunchAgentBy("sh", "-c", `exec "$@" `+strings.Join(more, " "), "sh")
		must(w.t, node.StartAgent())
	}
	for _, node := range w.Nodes() {
		must(w.t, node.WaitAgentReady(w.t.Context()))
	}
}

// isNamed waits until the firewall blocks IPv4, which each of them does, and each agent says so by
// an Event.
func (w *besideFirewall) isNamed() {
	w.t.Helper()
	for _, f := range w.clients {
		dst := netip.AddrPortFrom(w.addr(f.to, true), f.port)
		w.eventually(f.from+" to be blocked by "+w.wall.name,
			func() bool { return !w.connect(f.from, f.protocol, dst).OK })
	}
	for _, node := range w.Nodes() {
		w.eventually("the agent of "+node.Name()+" to name "+w.wall.name, func() bool {
			return slices.ContainsFunc(w.events(node.Name(), "ForwardingBlocked"),
				func(note string) bool { return strings.Contains(note, w.wall.blocks) })
		})
	}
}

// events returns the notes of the Events about a node with this reason.
func (w *world) events(node, reason string) (notes []string) {
	w.t.Helper()
	var all eventsv1.EventList
	must(w.t, w.Client().List(w.t.Context(), &all))
	for _, e := range all.Items {
		if e.Reason == reason && e.Regarding.Name == node {
			notes = append(notes, e.Note)
		}
	}
	return notes
}
