package podlink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"go.uber.org/goleak"
	"go4.org/netipx"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wirer does for a pod what the plugin does with an agent behind it, as far as links go: it gives
// addresses in their order, remembers an attachment, and wires; or forgets it, and cuts.
type wirer struct {
	mtu       int
	addresses []string       // patterns of those that it gives
	hostPorts []cni.HostPort // of every pod

	mu sync.Mutex // of what follows
	// what the agent does when the attachments are others, and before the links are; may be nil
	onChange    func()
	attachments []cni.Attachment
	given       int
}

// setOnChange has a function called from now on.
func (w *wirer) setOnChange(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onChange = f
}

// Attachments are those of the pods that there are, as a server sorts them.
func (w *wirer) Attachments() []cni.Attachment {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(slices.Values(w.attachments), func(a, b cni.Attachment) int {
		return strings.Compare(a.ID(), b.ID())
	})
}

func (w *wirer) Add(args *skel.CmdArgs) (types.Result, error) {
	var pod struct {
		types.CommonArgs

		//nolint:revive // the library's way to name fields
		K8S_POD_NAMESPACE, K8S_POD_NAME types.UnmarshallableString
	}
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return nil, err
	}
	a := w.attach(args, string(pod.K8S_POD_NAMESPACE), string(pod.K8S_POD_NAME))
	podNS, err := ns.GetNS(args.Netns)
	if err != nil {
		return nil, err
	}
	defer podNS.Close()
	if err := Delete(a.Interface, nil); err != nil {
		return nil, err
	}
	err = Wire(context.Background(), podNS,
		WiringOf(a, cnitest.Addrs(cnitest.Node4.String(), cnitest.Node6.String())))
	if err != nil {
		return nil, err
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	for _, addr := range a.Addresses {
		result.IPs = append(result.IPs,
			&types100.IPConfig{Address: *netipx.PrefixIPNet(cni.SingleHost(addr))})
	}
	return result, nil
}

func (w *wirer) attach(args *skel.CmdArgs, namespace, pod string) cni.Attachment {
	w.mu.Lock()
	w.given++
	a := cni.Attachment{
		ContainerID: args.ContainerID, IfName: args.IfName, PodNamespace: namespace, PodName: pod,
		Interface: cni.InterfaceName(namespace, pod, args.IfName), MTU: w.mtu,
		HostPorts: w.hostPorts,
	}
	for _, pattern := range w.addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(fmt.Sprintf(pattern, w.given)))
	}
	w.attachments = append(w.attachments, a)
	f := w.onChange
	w.mu.Unlock()
	if f != nil {
		f()
	}
	return a
}

func (w *wirer) Del(args *skel.CmdArgs) error {
	w.mu.Lock()
	i := slices.IndexFunc(w.attachments, func(a cni.Attachment) bool {
		return a.ContainerID == args.ContainerID
	})
	a := w.attachments[i]
	w.attachments = slices.Delete(w.attachments, i, i+1)
	f := w.onChange
	w.mu.Unlock()
	if f != nil {
		f()
	}
	if _, err := Cut(a.Interface, a.HostMAC()); err != nil {
		return err
	}
	return Delete(a.Interface, a.HostMAC())
}
