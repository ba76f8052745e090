package kill

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/internal/names"
)

// state is all that outlives the agent of subject, as a text that is the same for the same meaning:
// the table, links with their addresses, routes and neighbours, sysctls, and the files. Addresses
// of pods that come and go stand there by the pod's name.
func (w *world) state() string {
	w.t.Helper()
	// each has chains of its own
	attachment := regexp.MustCompile(`\b((?:pod|denied)/[^/ ]+/[^/ ]+)/[0-9a-f]{16}/`)
	table := attachment.ReplaceAllString(w.names(w.table()), "$1/ATTACHMENT/")
	return strings.Join([]string{normalise(table), w.links(), w.files()}, "\n")
}

// names replaces the addresses of pods that come and go, which aren't the same every time. After a
// reboot also server gets another one, if the agent was killed when it had given it one and hadn't
// recorded it: that one cools down.
func (w *world) names(text string) string {
	w.t.Helper()
	for _, name := range []string{server, newPod, peerPod} {
		pod, err := w.Pod(name)
		if err != nil {
			continue // it isn't there
		}
		for i, addr := range []netip.Addr{pod.Addr4(), pod.Addr6()} {
			text = regexp.MustCompile(regexp.QuoteMeta(addr.String())+`\b`).
				ReplaceAllString(text, fmt.Sprintf("<%s-%d>", name, i))
		}
	}
	return text
}

// owned matches what a listing says of who owns a table: that ends with the agent.
var owned = regexp.MustCompile(` # progname \S+|\n\tflags( owner)? *\n`)

// table lists subject's table without its counters and owner. Without a table it is empty.
func (w *world) table() string {
	w.t.Helper()
	tables, err := w.Nft(w.t.Context(), subject, "list", "tables")
	must(w.t, err)
	if !strings.Contains(tables, "inet sluice") {
		return ""
	}
	listing, err := w.Nft(w.t.Context(), subject, "--stateless", "list", "table", "inet", "sluice")
	must(w.t, err)
	return owned.ReplaceAllStringFunc(listing, func(found string) string {
		if strings.HasPrefix(found, "\n") {
			return "\n"
		}
		return ""
	})
}

// normalise orders what has no order in a listing: chains and sets, and the elements of sets.
func normalise(listing string) string {
	elements := regexp.MustCompile(`(?s)elements = \{(.*?)\}`)
	listing = elements.ReplaceAllStringFunc(listing, func(all string) string {
		parts := strings.Split(elements.FindStringSubmatch(all)[1], ",")
		for i := range parts {
			parts[i] = strings.Join(strings.Fields(parts[i]), " ")
		}
		slices.Sort(parts)
		return "elements = { " + strings.Join(parts, ", ") + " }"
	})
	blocks := strings.Split(strings.TrimSpace(listing), "\n\n")
	for i := range blocks {
		blocks[i] = strings.TrimSuffix(
			strings.TrimPrefix(blocks[i], "table inet sluice {\n"), "\n}")
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "\n")
}

// links lists links with their addresses, neighbours and forwarding entries, routes and sysctls.
func (w *world) links() string {
	w.t.Helper()
	const look = `
for device in $(cd /proc/sys/net/ipv4/conf; echo sluice.* slup*); do
  [ -d /proc/sys/net/ipv4/conf/$device ] || continue
  { ip -o -d link show dev $device; ip -o addr show dev $device
    ip neigh show dev $device nud permanent; ip -6 neigh show dev $device nud permanent
    bridge fdb show dev $device; } | sed "s/^/$device: /" # it may come or go meanwhile
done
ip route show proto 83; ip -6 route show proto 83; ip route show proto 84; ip -6 route show proto 84
cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding`
	// Indexes, the name of the pod's namespace if it can be found, MACs and aliases made from
	// container IDs.
	volatile := regexp.MustCompile(
		` [0-9]+: |link-netns\S* \S+|@if[0-9]+|link/ether \S+|valid_lft.*`)
	podMAC := regexp.MustCompile(`lladdr \S+`)
	var lines []string
	for line := range strings.Lines(w.names(w.sh(look))) {
		line = volatile.ReplaceAllString(line, "")
		if strings.HasPrefix(line, names.PodLink) {
			line = podMAC.ReplaceAllString(line, "lladdr")
		}
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(lines) // only now, as a pod's name isn't sorted as its address is
	return strings.Join(lines, "\n")
}

// sh runs a shell's command line on subject and returns what it printed.
func (w *world) sh(line string) string {
	w.t.Helper()
	// the latter also has what ip says of other labs' namespaces that come and go
	var stdout, stderr strings.Builder
	must(w.t, w.Do(subject, func() error {
		cmd := exec.CommandContext(w.t.Context(), "sh", "-ec", line)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s in %s: %w: %s", line, subject, err, &stderr)
		}
		return nil
	}))
	return stdout.String()
}

// files lists the files that the agent keeps on subject, with what is in them. An attachment is
// called by its pod, and of the ledger there is which addresses are taken.
func (w *world) files() string {
	w.t.Helper()
	dir := w.node().Dir()
	var lines []string
	for _, part := range []string{"sluice", "run", "cni/net.d"} {
		must(w.t, filepath.WalkDir(filepath.Join(dir, part),
			func(path string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return ignoreGone(err)
				}
				line, err := describeFile(path, strings.TrimPrefix(path, dir+"/"))
				if entry.Name() != "subnet.env" { // whose prefix may begin with a pod's address
					line = w.names(line)
				}
				lines = append(lines, line)
				return ignoreGone(err)
			}))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func describeFile(path, name string) (string, error) {
	if filepath.Base(name) == cni.SocketName || filepath.Base(name) == "heartbeat.json" {
		return name, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return name, err
	}
	var known struct {
		PodNamespace, PodName string
		Addresses, Taken      []netip.Addr
		Freed                 map[netip.Addr]time.Duration
	}
	isAttachment := strings.HasPrefix(name, "sluice/attachments/") &&
		!strings.HasPrefix(filepath.Base(name), ".")
	if isAttachment || name == "sluice/addresses.json" {
		if err := json.Unmarshal(text, &known); err != nil {
			return name, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	switch {
	case isAttachment:
		return fmt.Sprintf("sluice/attachments: %s/%s %s", known.PodNamespace, known.PodName,
			known.Addresses), nil
	case name == "sluice/addresses.json":
		coolsDown := func(addr netip.Addr) bool { _, is := known.Freed[addr]; return is }
		return fmt.Sprintf("%s: taken %s", name, slices.DeleteFunc(known.Taken, coolsDown)), nil
	}
	return name + ": " + string(text), nil
}

// become waits until the subject's state is this.
func (w *world) become(want, when string) {
	w.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(settleTime); ; <-tick.C {
		got := w.state()
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: the state isn't what it is undisturbed (-want +got):\n%s", when,
				cmp.Diff(want, got))
		}
	}
}

// settled waits until the subject's state is another than before, and stays as it is for a while.
func (w *world) settled(before string) string {
	w.t.Helper()
	const rest = 1200 * time.Millisecond
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	state, since := w.state(), time.Now()
	for deadline := since.Add(2 * settleTime); time.Since(since) < rest ||
		state == before; <-tick.C {
		looked := time.Now()
		if now := w.state(); now != state {
			state, since = now, looked
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the state doesn't change, or doesn't come to rest:\n%s", state)
		}
	}
	return state
}
