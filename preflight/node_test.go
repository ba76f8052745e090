package preflight

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/overlay"
	"github.com/sluice-net/sluice/test/nfttest"
	"github.com/sluice-net/sluice/test/testdisk"
	"github.com/sluice-net/sluice/test/testnet"
)

// machine is a network namespace and folders that pass for a node's.
type machine struct {
	testnet.Space
	Options
}

// newMachine is a node where nothing is in the way.
func newMachine(t *testing.T) *machine {
	t.Helper()
	config, err := overlay.ParseConfig([]byte(`{"Network": "10.244.0.0/16"}`))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Space: testnet.NewSpace(t), Options: Options{
		Config: config, SysctlDir: "/proc/sys/net",
	}}
	for _, dir := range []*string{&m.BinDir, &m.ConfDir, &m.StateDir} {
		*dir = t.TempDir()
	}
	// without addresses that come by themselves, later
	m.Run(`ip link add eth0 type veth peer name eth1
		ip link set eth0 addrgenmode none
		ip link set eth1 addrgenmode none
		ip link set eth0 up
		ip link set eth1 up
		ip addr add 192.0.2.1/24 dev eth0
		ip route add default via 192.0.2.9`)
	return m
}

// says wants an outcome of one check, which says something.
func (m *machine) says(t *testing.T, name string, status Status, says ...string) {
	t.Helper()
	m.Do(func() error {
		for _, r := range Run(m.Options) {
			if r.Check == name {
				expect(t, name, r, status, says...)
				return nil
			}
		}
		t.Errorf("there is no check %s", name)
		return nil
	})
}

// TestFreshNode: a node where nothing is in the way passes, and is afterwards as it was.
func TestFreshNode(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	look := func() string {
		var tables []byte // of legacy iptables
		m.Do(func() error {
			for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
				names, err := os.ReadFile("/proc/thread-self/net/" + file)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				tables = append(tables, names...)
			}
			return nil
		})
		return m.Run("nft -s list ruleset") + m.Run("ip -d -o link") + m.Run("ip -o addr") +
			m.Run("ip -o route show table all") + m.Run("ss -aun") +
			string(tables) +
			m.Run("find "+m.BinDir+" "+m.ConfDir+" "+m.StateDir)
	}
	nfttest.Eventually(t, func() error { // the kernel takes its time with it
		if links := m.Run("ip -o link"); strings.Count(links, " state UP ") != 2 {
			return errors.New(links)
		}
		return nil
	})
	before := look()
	m.Do(func() error {
		for _, r := range Run(m.Options) {
			if r.Status != Pass && r.Check != "kernel" { // that is what it is
				t.Error(r)
			}
		}
		return nil
	})
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestChecksOfModes: with --policy-only, what is about a network of ours isn't looked at, and
// bridges are.
func TestChecksOfModes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for policyOnly, want := range map[bool]string{
		false: "kernel capabilities nftables links network mtu tunnel firewall leftovers " +
			"configurations folders",
		true: "kernel capabilities nftables firewall leftovers bridges configurations folders",
	} {
		m.PolicyOnly = policyOnly
		var names []string
		m.Do(func() error {
			for _, r := range Run(m.Options) {
				names = append(names, r.Check)
			}
			return nil
		})
		if got := strings.Join(names, " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestOnNodes: what is in the way on a node is found. TestFreshNode is the control.
func TestOnNodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		setUp  string // commands
		change func(o *Options)
		check  string
		want   Status
		says   string
	}{
		{name: "no default route", setUp: "ip route del default", check: "network", want: Fail,
			says: "no address on the underlay"},
		{name: "no link known", setUp: "ip route del default", check: "mtu", want: Warn},
		{name: "an old bridge", setUp: "ip link add cni0 type bridge\nip addr add 10.244.3.1/24 dev cni0",
			check: "network", want: Warn, says: "10.244.3.1/24 on cni0"},
		{name: "a small link", setUp: "ip link set eth0 mtu 600", check: "network", want: Fail,
			says: "leaves 550"},
		{name: "an MTU that doesn't fit", change: func(o *Options) { o.Config.MTU = 9000 },
			check: "mtu", want: Warn, says: "9000"},
		{name: "a link of 1400", setUp: "ip link set eth0 mtu 1400", check: "mtu", want: Pass,
			says: "1350"},
		{name: "flannel's tunnel", check: "tunnel", want: Fail, says: "link flannel.1 has VNI 1",
			setUp: "ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1"},
		{name: "flannel's with host-gw", check: "tunnel", want: Pass, says: "none with host-gw",
			change: func(o *Options) { o.Config.Backend = overlay.HostGW },
			setUp:  "ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1"},
		{name: "a tunnel at another port", check: "tunnel", want: Pass, says: "are free",
			setUp: "ip link add vx type vxlan id 1 dstport 4789 local 192.0.2.1"},
		{name: "a tunnel that shares the port", check: "tunnel", want: Pass, says: "with link vx",
			setUp: "ip link add vx up type vxlan id 7 dstport 8472 udp6zerocsumrx"},
		{name: "a tunnel of another VNI", check: "tunnel", want: Pass, says: "with link sluice.7",
			setUp: "ip link add sluice.7 up type vxlan id 7 dstport 8472 local 192.0.2.1 " +
				"udp6zerocsumrx nolearning udpcsum"},
		{name: "a tunnel of the other family", check: "tunnel", want: Pass, says: "are free",
			setUp: "ip link add vx up type vxlan id 1 dstport 8472 local fd00::1"},
		{name: "an agent's tunnel", check: "tunnel", want: Pass, says: "sluice.1 is there",
			setUp: "ip link add sluice.1 up type vxlan id 1 dstport 8472 local 192.0.2.1"},
		{name: "a firewall", check: "firewall", want: Warn, says: "chain FORWARD (policy DROP)",
			setUp: "iptables-legacy -P FORWARD DROP"},
		{name: "a firewall on input", check: "firewall", want: Warn, says: "accept UDP port 8472",
			setUp: "ip6tables-legacy -P INPUT DROP"},
		{name: "leftovers", check: "leftovers", want: Warn, says: "kube-router: legacy iptables",
			setUp: "iptables-legacy -N KUBE-ROUTER-FORWARD"},
		{name: "leftovers in nftables", check: "leftovers", want: Warn, says: "cali-a",
			setUp: "nft add table ip filter\nnft add chain ip filter cali-a"},
		{name: "an agent's table", check: "nftables", want: Pass, says: "all that is",
			setUp: "nft add table inet sluice"},
		{name: "a bridge past the rules", check: "bridges", want: Warn, says: "bridge cbr0",
			setUp:  "ip link add cbr0 type bridge\nip addr add 10.9.0.1/24 dev cbr0",
			change: func(o *Options) { o.PolicyOnly, o.SysctlDir = true, "/nonexistent" }},
		{name: "no IPv6", check: "network", want: Fail, says: "the kernel has none",
			change: func(o *Options) {
				o.Config.IPv6Network, o.SysctlDir = o.Config.Network, "/nonexistent"
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			if c.setUp != "" {
				m.Run(c.setUp)
			}
			if c.change != nil {
				c.change(&m.Options)
			}
			m.says(t, c.check, c.want, c.says)
		})
	}
}

// TestUnknownKind: a kind of links that this kernel hasn't is known to be missing.
func TestUnknownKind(t *testing.T) {
	t.Parallel()
	s := testnet.NewSpace(t)
	s.Do(func() error {
		for kind, want := range map[string]bool{"veth": true, "nosuchkind": false} {
			if is, err := knowsKind(kind); err != nil || is != want {
				t.Errorf("%s: got %t and %v, want %t", kind, is, err, want)
			}
		}
		return nil
	})
}

// TestWithoutCapabilities: a process that may not ask says so in each check that needs it.
func TestWithoutCapabilities(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run("iptables-legacy -N KUBE-ROUTER-FORWARD") // so that there is something to read
	var results []Result
	err := testdisk.OnThread(func() error {
		if err := unix.Setns(int(m.NetNS.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		results = Run(m.Options)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Status{}
	for _, r := range results {
		got[r.Check] = r.Status
	}
	for name, want := range map[string]Status{"capabilities": Fail, "nftables": Fail, "links": Warn,
		"firewall": Warn, "leftovers": Warn, "folders": Pass} {
		if got[name] != want {
			t.Errorf("%s: got %s, want %s", name, got[name], want)
		}
	}
}

// TestFiles: others' configurations and folders of others are found.
func TestFiles(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	put := func(name string) func() {
		path := filepath.Join(m.ConfDir, name)
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() { _ = os.Remove(path) }
	}
	put("05-sluice.conflist")
	put("00-kept.conf.bak")
	m.says(t, "configurations", Pass)
	remove := put("10-flannel.conflist")
	m.says(t, "configurations", Warn, "10-flannel.conflist")
	put("00-multus.conf")
	m.says(t, "configurations", Fail, "00-multus.conf comes before")
	remove()
	m.says(t, "configurations", Fail, "00-multus.conf")
	m.ConfDir = filepath.Join(m.ConfDir, "00-multus.conf")
	m.says(t, "folders", Fail, "is no folder")
	m.ConfDir += ".missing"
	m.says(t, "configurations", Pass, "isn't there yet")
	m.says(t, "folders", Pass)

	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chown(m.BinDir, 1000, 0))
	m.says(t, "folders", Fail, "belongs to uid 1000", "chown root:root "+m.BinDir)
	must(os.Chown(m.BinDir, 0, 1000))
	must(os.Chmod(m.BinDir, 0o775))
	m.says(t, "folders", Fail, "can be written by others", "chmod go-w "+m.BinDir)
	must(os.Chown(m.BinDir, 0, 0))
	m.says(t, "folders", Pass)
	must(os.Chmod(m.BinDir, 0o757))
	m.says(t, "folders", Fail, "can be written by others")
	must(os.Chmod(m.BinDir, 0o755))
	m.says(t, "folders", Pass)
}

// TestHostileNames: what others named can neither forge a line nor reach the terminal.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const evil = "\x1b[31m\npass  kernel  \u202e"
	if err := os.WriteFile(filepath.Join(m.ConfDir, "00"+evil+".conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.Run("ip link add vx\x1b[5m type vxlan id 9 dstport 8472 local 192.0.2.1")
	m.Do(func() error {
		results := Run(m.Options)
		var text strings.Builder
		if err := Write(&text, results); err != nil {
			return err
		}
		if lines := strings.Count(text.String(), "\n"); lines != len(results)+1 {
			t.Errorf("%d lines of %d results:\n%q", lines, len(results), text.String())
		}
		if strings.ContainsAny(text.String(), "\x1b\u202e") {
			t.Errorf("control characters are printed: %q", text.String())
		}
		if !strings.Contains(text.String(), `00\u001b[31m\u000apass`) {
			t.Errorf("the name isn't there: %q", text.String())
		}
		return nil
	})
}
