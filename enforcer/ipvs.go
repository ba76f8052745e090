package enforcer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/link"
)

// IPVSLink is the link on which kube-proxy in IPVS mode has the Services' addresses. It comes
// before the first Service.
const IPVSLink = "kube-ipvs0"

// ipvsTable lists the Services of IPVS, if the kernel has it: those of the thread's namespace.
const ipvsTable = "/proc/thread-self/net/ip_vs"

// IPVSWatch keeps an Enforcer informed of whether IPVS may send packets on: there is kube-proxy's
// link for it, or IPVS has a Service, anybody's.
type IPVSWatch struct {
	enforcer *Enforcer
	loop     *link.Loop
	log      logr.Logger
	known    bool // in use was found
	inUse    bool
}

// NewIPVSWatch returns a watch that does nothing yet. A nil namespace is the process's.
func NewIPVSWatch(e *Enforcer, netns ns.NetNS, log logr.Logger) *IPVSWatch {
	// The link is announced. A Service without it is found by the tick.
	const tick = 10 * time.Second
	w := &IPVSWatch{enforcer: e, log: log, loop: link.NewLoop(netns, "", 0, tick, log)}
	w.loop.Concerns = func(n link.Notice) bool { return n.Name == IPVSLink }
	w.loop.Pass = w.pass
	return w
}

// Start looks for the first time. It is called before the Enforcer runs, whose first ruleset then
// is right.
func (w *IPVSWatch) Start() error {
	k, err := w.loop.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	return link.In(w.loop.NetNS, func() error { w.pass(k); return nil })
}

// Run follows until ctx ends.
func (w *IPVSWatch) Run(ctx context.Context) error { return w.loop.Run(ctx) }

// pass is false to be called again soon. What can't be found out counts as in use, until it can.
func (w *IPVSWatch) pass(k *link.Kernel) bool {
	inUse, err := ipvsInUse(k)
	if err != nil {
		w.log.Error(err, "Whether IPVS is in use can't be found out; it counts as in use")
		inUse = true
	}
	if !w.known || inUse != w.inUse {
		if inUse || w.known {
			w.log.Info("What IPVS may send on to pods is judged on output, or not any more",
				"inUse", inUse)
		}
		w.known, w.inUse = true, inUse
		w.enforcer.SetIPVS(inUse)
	}
	return err == nil
}

func ipvsInUse(k *link.Kernel) (bool, error) {
	_, err := k.LookAt(IPVSLink)
	if err == nil || !errors.Is(err, link.ErrNoLink) {
		return true, err
	}
	file, err := os.Open(ipvsTable)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the kernel has no IPVS, or nobody has loaded it
	}
	if err != nil {
		return true, fmt.Errorf("reading the Services of IPVS: %w", err)
	}
	defer file.Close()
	return listsService(file)
}

// listsService reports whether a listing of IPVS has a Service. Three lines of headings come first,
// and a Service begins with its protocol or FWM.
func listsService(listing io.Reader) (bool, error) {
	lines := bufio.NewScanner(listing)
	for lines.Scan() {
		switch kind, _, _ := strings.Cut(lines.Text(), " "); kind {
		case "TCP", "UDP", "SCTP", "FWM":
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return true, fmt.Errorf("reading the Services of IPVS: %w", err)
	}
	return false, nil
}
