package kill

import (
	"fmt"

	"github.com/sluice-net/sluice/e2e/lab/kubelet"
)

// Pods that come and go, on subject and on neighbour.
const newPod, peerPod = "app/new", "app/peer"

// serverPolicy is server's, when another may come to port 81 too, or may not. Between the two,
// rules change as well as the sets that they use: what mixes them allows the client port 81, or the
// other port 80.
func serverPolicy(loose bool) string {
	more := ""
	if loose {
		more = `
  - {from: [{podSelector: {matchLabels: {app: other}}}], ports: [{port: 81}, {port: 81, protocol: UDP}]}`
	}
	return `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: app, name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - {from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}` + more + "\n"
}

// newPolicy isolates newPod: it may connect to no pod, and only client1 and far to it.
const newPolicy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: app, name: new}
spec:
  podSelector: {matchLabels: {app: new}}
  policyTypes: [Ingress, Egress]
  ingress:
  - {from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}
`

// opened is what the loose policy allows and the tight one doesn't.
var opened = []flow{{other, 81}}

// change is something that happens to subject, there and back again.
type change struct {
	name string
	// there begins the change, back undoes it. Neither waits.
	there, back func(w *world)
	// isThere and isBack wait until all but the agent has done its part. They may be nil.
	isThere, isBack func(w *world)
	// unseen says that the change happens while no agent runs: the next one finds it when it
	// starts.
	unseen bool
	// reboots says that the subject reboots instead. There is no way back, and no connection to its
	// pods goes on.
	reboots bool
	// opens says that there, the flows of opened are allowed.
	opens bool
	// splits says that nodes which haven't all changed don't understand each other, so that packets
	// from neighbour wait for the agent.
	splits bool
	// sample is at which kill points the agent dies in each direction, unless at all: the numbers
	// of nftables transactions, and of kill points of every kind.
	transactions, points []int
}

var changes = []change{
	{
		name:  "a policy is loosened and tightened",
		there: func(w *world) { w.apply(serverPolicy(true)) }, back: func(w *world) {
			w.apply(serverPolicy(false))
		},
		opens: true, transactions: []int{1, 2},
	},
	{
		name:  "a start after a policy was loosened or tightened",
		there: func(w *world) { w.apply(serverPolicy(true)) }, back: func(w *world) {
			w.apply(serverPolicy(false))
		},
		unseen: true, opens: true, transactions: []int{2}, points: []int{4},
	},
	{
		name:  "ADD and DEL",
		there: addPod, back: func(w *world) { w.remove(newPod) },
		isThere: podIsThere, isBack: func(w *world) { w.gone(newPod) },
		transactions: []int{1}, points: []int{3, 9},
	},
	{
		name:    "a peer comes and goes",
		there:   func(w *world) { w.create(peerPod, neighbour, "client", nil) },
		back:    func(w *world) { w.remove(peerPod) },
		isThere: func(w *world) { w.ready(peerPod) },
		isBack:  func(w *world) { w.gone(peerPod) },
		points:  []int{1},
	},
	{
		name:  "a node comes and goes",
		there: ghostComes, back: ghostGoes,
		points: []int{3},
	},
	{
		name:  "the network is routed where it can be, and no longer",
		there: func(w *world) { w.routeDirectly(true) }, back: func(w *world) {
			w.routeDirectly(false)
		},
		splits: true, points: []int{8},
	},
}

// aReboot has the agent begin with nothing, on a node that has one pod, which is started again.
var aReboot = change{
	name: "the first start since a boot", reboots: true,
	isThere:      func(w *world) { w.ready(server) },
	transactions: []int{1}, points: []int{2, 30},
}

// addPod creates a pod whose first act is a connection that its policy denies.
func addPod(w *world) {
	w.create(newPod, subject, "new",
		map[string]string{kubelet.FirstConnectAnnotation: fmt.Sprintf("tcp://%s",
			w.target(other, 4, 80))})
}

// podIsThere waits for the pod, and demands that its first act has failed.
func podIsThere(w *world) {
	w.t.Helper()
	w.ready(newPod)
	w.firstConnectFailed(newPod)
}
