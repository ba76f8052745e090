package kill

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/internal/killpoint"
	"github.com/sluice-net/sluice/e2e/lab/kubelet"
)

// all says that the agent is to die at every kill point, not only at some.
var all = os.Getenv("SLUICE_LONG") != ""

// TestKilled: at each point of a change where the agent is killed, what neither the old nor the new
// state allows never passes, what both allow goes on, and a new agent reaches the same end as an
// undisturbed one, with nothing left over.
func TestKilled(t *testing.T) { //nolint:tparallel // the parts take turns on one lab
	t.Parallel()
	w := newWorld(t, "killed", server, client1, other)
	for _, c := range changes {
		ok := t.Run(c.name, func(t *testing.T) {
			outer := w.t
			defer func() { w.t = outer }()
			w.t = t
			w.killedIn(c)
		})
		if !ok {
			return // the node's state isn't known
		}
	}
}

// TestKilledAtFirst is the same for an agent that has found nothing on its node, and a node that
// has just booted.
func TestKilledAtFirst(t *testing.T) {
	t.Parallel()
	newWorld(t, "killed1st", server).killedIn(aReboot)
}

// path is a change in one direction.
type path struct {
	change

	name         string
	begin, wait  func(w *world)
	before, want string // the subject's state
	opens        bool
	undisturbed  []killpoint.Call
}

func (w *world) killedIn(c change) {
	there := &path{change: c, name: "there", begin: c.there, wait: c.isThere, opens: c.opens}
	back := &path{change: c, name: "back", begin: c.back, wait: c.isBack}
	defer w.watch(!c.reboots)()
	there.before = w.settled("")
	w.undisturbed(there)
	if c.reboots {
		w.become(there.before, "undisturbed")
	} else {
		back.before = there.want
		w.undisturbed(back)
		w.become(there.before, "back again, undisturbed")
	}
	start, kills := time.Now(), 0
	for _, aim := range aims(there, back) {
		killedThere := w.dies(there, aim)
		killedBack := !c.reboots && w.dies(back, aim)
		kills += count(killedThere, killedBack)
		if w.t.Failed() || all && !killedThere && !killedBack {
			break
		}
	}
	w.t.Logf("proof: %d and %d kill points there and back, %d kills in %v",
		len(there.undisturbed), len(back.undisturbed), kills, time.Since(start).Round(time.Second))
}

// TestLostAnswers: an agent that loses the kernel's answers to a transaction, and so doesn't know
// its outcome, reaches the same end without a new start; what neither state allows never passes
// meanwhile.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "lost", server, client1, other)
	tight := w.settled("")
	w.apply(serverPolicy(true))
	loose := w.settled(tight)
	w.apply(serverPolicy(false))
	w.become(tight, "undisturbed")
	defer w.watch(true)()
	for _, at := range []int{1, 2} {
		for _, loosen := range []bool{true, false} {
			when, want, lost := fmt.Sprintf("loosened %v, without the answers to transaction %d",
				loosen, at), tight, w.lostAnswers()
			if loosen {
				want = loose
			}
			w.trap.Arm(killpoint.Aim{At: at, Of: isTransaction, Starve: true})
			w.apply(serverPolicy(loosen))
			w.eventually("the agent to lose answers", func() bool { return w.lostAnswers() > lost })
			w.become(want, when)
			w.check(when, opened, loosen)
			w.t.Logf("proof: %s: %s", when, w.trap.Disarm())
		}
	}
}

// lostAnswers counts how often the agent has lost some.
func (w *world) lostAnswers() int {
	return strings.Count(w.node().AgentLog(), unix.ENOBUFS.Error())
}

func count(held ...bool) (n int) {
	for _, h := range held {
		if h {
			n++
		}
	}
	return n
}

// undisturbed goes a path to see where it leads and which kill points it has.
func (w *world) undisturbed(p *path) {
	w.t.Helper()
	w.setOff(p, killpoint.Aim{})
	if p.wait != nil {
		p.wait(w)
	}
	if p.want = p.before; p.reboots {
		w.become(p.want, p.name)
	} else {
		p.want = w.settled(p.before)
	}
	p.undisturbed = w.trap.Disarm()
	var lines []string
	for i, call := range p.undisturbed {
		lines = append(lines, fmt.Sprintf("%3d %s", i+1, w.short(call)))
	}
	w.t.Logf("%s: kill points:\n%s", p.name, strings.Join(lines, "\n"))
	w.check(p.name, opened, p.opens)
}

// short is a kill point without what is another every time.
func (w *world) short(c killpoint.Call) string {
	return regexp.MustCompile(`\.new-\d+|env\.\d+|[0-9a-f]{64}`).
		ReplaceAllString(strings.ReplaceAll(c.String(), w.node().Dir(), ""), "*")
}

// setOff begins a path with an agent that is armed.
func (w *world) setOff(p *path, aim killpoint.Aim) {
	w.t.Helper()
	switch {
	case p.reboots:
		w.reboot(&aim)
	case p.unseen:
		w.kill()
		p.begin(w)
		w.start(&aim)
	default:
		w.trap.Arm(aim)
		p.begin(w)
	}
}

// aims says where the agent dies, once in each direction.
func aims(there, back *path) []killpoint.Aim {
	var aims []killpoint.Aim
	if all {
		// More than there are: their number isn't the same every time, and the first at which the
		// agent doesn't die is the end.
		for at := range 2 * max(len(there.undisturbed), len(back.undisturbed)) {
			aims = append(aims, killpoint.Aim{At: at + 1})
		}
		return aims
	}
	for _, at := range there.transactions {
		aims = append(aims, killpoint.Aim{At: at, Of: isTransaction})
	}
	for _, at := range there.points {
		aims = append(aims, killpoint.Aim{At: at})
	}
	return aims
}

func isTransaction(c killpoint.Call) bool { return c.Kind == killpoint.Nftables }

// dies goes a path on which the agent is to be killed, and says whether it was.
func (w *world) dies(p *path, aim killpoint.Aim) bool {
	w.t.Helper()
	w.setOff(p, aim)
	w.awaitDeath(p, aim)
	w.trap.Disarm()
	if w.trap.Death() == nil {
		w.become(p.want, p.name)
		return false
	}
	w.node().KillAgent() // which waits until it is gone
	when := fmt.Sprintf("%s, killed at %d, %s", p.name, aim.At, w.short(*w.trap.Death()))
	w.t.Log(when)
	dead := w.table()
	if !p.reboots {
		w.checkSome(when+", while dead", func(f flow) bool {
			return p.splits && f.from == farClient
		})
	}
	if now := w.table(); now != dead {
		w.t.Errorf("%s: the table changes without an agent (-before +after):\n%s", when,
			cmp.Diff(dead, now))
	}
	w.restart()
	if p.wait != nil {
		p.wait(w)
	}
	w.become(p.want, when)
	w.check(when+", and back", opened, p.opens)
	return true
}

// awaitDeath waits until the agent is killed. Once everything is done it waits for so long only as
// something may still come.
func (w *world) awaitDeath(p *path, aim killpoint.Aim) {
	w.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	patience := 2 * time.Second
	if aim.Of == nil && aim.At <= len(p.undisturbed) {
		patience = settleTime / 2
	}
	end := time.Now().Add(settleTime)
	for isThere := false; time.Now().Before(end); {
		select {
		case <-w.trap.Killed():
			return
		case <-tick.C:
		}
		if !isThere && w.state() == p.want {
			isThere = true
			if p.wait != nil {
				p.wait(w)
			}
			end = time.Now().Add(patience)
		}
	}
}

// ghost is a node that exists as an object only.
func ghost() *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ghost"}}
	node.Spec.PodCIDRs = []string{"10.244.77.0/24", "fd00:10:244:77::/64"}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	return node
}

func ghostComes(w *world) {
	w.t.Helper()
	node := ghost()
	must(w.t, w.Client().Create(w.t.Context(), node))
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "192.168.0.77"},
		{Type: corev1.NodeInternalIP, Address: "fd00:192:168::77"},
	}
	must(w.t, w.Client().Status().Update(w.t.Context(), node))
}

func ghostGoes(w *world) { must(w.t, w.Client().Delete(w.t.Context(), ghost())) }

func (w *world) routeDirectly(on bool) {
	w.t.Helper()
	must(w.t, w.EditNetConf(func(conf map[string]any) {
		conf["Backend"] = map[string]any{"Type": "vxlan", "DirectRouting": on}
	}))
}

// firstConnectFailed waits for the outcome of a pod's first act, and demands that it was denied.
func (w *world) firstConnectFailed(name string) {
	w.t.Helper()
	namespace, short, _ := strings.Cut(name, "/")
	var result kubelet.FirstConnect
	w.eventually("the outcome of the first act of "+name, func() bool {
		pod := &corev1.Pod{}
		err := w.Client().Get(w.t.Context(),
			client.ObjectKey{Namespace: namespace, Name: short}, pod)
		if err != nil {
			return false
		}
		text, found := pod.Annotations[kubelet.FirstConnectResultAnnotation]
		return found && json.Unmarshal([]byte(text), &result) == nil
	})
	if result.OK {
		w.t.Errorf("%s has connected as its first act, which its policy denies: %+v", name, result)
	}
}
