package table

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-net/sluice/nft"
	"github.com/sluice-net/sluice/test/memorygroup"
)

// pods is how many pod chains there are before and after; what they do differs.
const pods = 20

// TestOutOfMemory: a process that the kernel kills for its memory, at whatever moment of writing a
// ruleset, leaves all pods' chains as they were, or all as they are to be, and every pod under its
// chain. The next process writes the rest.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	if os.Getenv(writerEnv) != "" {
		write(t)
		return
	}
	g := memorygroup.New(t)
	killed := 0
	for more := int64(2 << 20); ; more += more / 2 {
		n := newNamespace(t)
		table := n.open(Options{})
		mustSync(t, table, big(pods, 1, 10))
		before := n.podChains()
		if err := table.Close(); err != nil {
			t.Fatal(err)
		}
		wasKilled := n.writeElsewhere(g, more)
		during := n.podChains()
		table = n.open(Options{})
		mustSync(t, table, later())
		mustMatch(t, table)
		after := n.podChains()
		if !maps.Equal(during, before) && !maps.Equal(during, after) {
			t.Errorf("%d bytes: a mixture was left:\n%s\nbefore:\n%s", more, during, before)
		}
		if len(before) != pods+1 || maps.Equal(before, after) {
			t.Errorf("%d bytes: %d chains and a map were found, want %d that change:\n%s", more,
				len(before)-1, pods, before)
		}
		if !wasKilled {
			break
		}
		if killed++; more > plenty {
			t.Fatal("it is killed whatever it may have")
		}
	}
	if killed == 0 {
		t.Error("it was never killed")
	}
	t.Logf("killed %d times", killed)
}

func later() *nft.Ruleset { return big(pods, 75, 2000) }

// plenty is more than the writer needs.
const plenty = 4 << 30

// podChains are the rules of each pod's chain, and the map that leads there.
func (n *namespace) podChains() map[string]string {
	n.Helper()
	out := map[string]string{}
	list := n.Nft("--stateless", "--terse", "list", "table", "inet", nft.TableName)
	for block := range strings.SplitSeq(list, "\n\n") {
		name, rules, ok := strings.Cut(block, "chain pod/")
		if ok && !strings.Contains(name, "chain") {
			name, rules, _ = strings.Cut(rules, " {")
			out[name] = rules
		}
	}
	out["map"] = n.Nft("list", "map", "inet", nft.TableName, "map/pods")
	return out
}

// writerEnv is set in the process that writes a ruleset when it is told to.
const writerEnv = "SLUICE_TEST_WRITER"

// write makes the ruleset that another process is to be killed over, and writes it once a line
// comes from stdin. The namespace is file 3.
func write(t *testing.T) {
	t.Helper()
	table, err := Open(Options{NetNS: 3, MaxMessages: 100}) // many transactions
	if err != nil {
		t.Fatal(err)
	}
	want := later()
	debug.FreeOSMemory()
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	mustSync(t, table, want)
}

// writeElsewhere has another process write the ruleset while it may have so many bytes more than
// before, and tells whether the kernel killed it.
func (n *namespace) writeElsewhere(g memorygroup.Group, more int64) (killed bool) {
	n.Helper()
	must := func(err error) {
		n.Helper()
		if err != nil {
			n.Fatal(err)
		}
	}
	must(g.Limit(plenty))
	kills, err := g.Kills()
	must(err)
	netns, err := os.Open(n.NS.Path())
	must(err)
	defer func() { _ = netns.Close() }()
	launcher := append(g.Launcher(), os.Args[0], "-test.run=^TestOutOfMemory$")
	cmd := exec.Command(launcher[0], launcher[1:]...)
	cmd.Env, cmd.ExtraFiles, cmd.Stderr = append(os.Environ(), writerEnv+"=1"), []*os.File{netns},
		os.Stderr
	stdin, err := cmd.StdinPipe()
	must(err)
	stdout, err := cmd.StdoutPipe()
	must(err)
	must(cmd.Start())
	said := bufio.NewScanner(stdout)
	for said.Scan() && said.Text() != "ready" {
		n.Log(said.Text())
	}
	used, err := g.Usage()
	must(err)
	must(g.Limit(used + more))
	_, err = stdin.Write([]byte("\n"))
	must(err)
	for said.Scan() && said.Text() != "PASS" {
		n.Log(said.Text())
	}
	var exit *exec.ExitError
	if err = cmd.Wait(); errors.As(err, &exit) {
		status, _ := exit.Sys().(syscall.WaitStatus)
		killed = status.Signaled() && status.Signal() == syscall.SIGKILL
	}
	now, errKills := g.Kills()
	if err != nil && !killed || errKills != nil || killed != (now > kills) {
		n.Fatalf("the writer: %v; the kernel says that it killed %d after %d (%v)", err, now, kills,
			errKills)
	}
	return killed
}
