package kubelet

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/internal/podprogram"
	"github.com/sluice-net/sluice/e2e/lab/namespace"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/test/stretch"
)

// FirstConnect is the outcome of what FirstConnectAnnotation asks for.
type FirstConnect = podprogram.FirstConnect

// cniTimeout is how long a verb of the plugin may take: as long as containerd and kubelet wait.
const cniTimeout = 2 * time.Minute

// servingTimeout is how long a pod's program may take to open its ports.
var servingTimeout = stretch.By(30 * time.Second)

// sandbox is a pod's network and the program in it.
type sandbox struct {
	kubelet     *Kubelet
	pod         Pod
	containerID string
	network     *libcni.NetworkConfigList // as it was for CNI ADD
	config      *libcni.RuntimeConf       // nil on the host's network
	process     *process.Process
	// gets the outcome of the first connection, if the pod makes one
	firstConnect chan *FirstConnect
	power        context.Context // ends when the node goes off
}

// newSandbox sets up the network by CNI ADD and starts the program. When it fails, or ctx ends,
// nothing is left of it; except when the node goes off meanwhile: then nobody undoes the ADD.
func newSandbox(ctx context.Context, k *Kubelet, object *corev1.Pod) (*sandbox, error) {
	ctx, done := k.power.use(ctx)
	defer done()
	box := &sandbox{
		kubelet: k,
		pod: Pod{
			Name: client.ObjectKeyFromObject(object).
				String(),
			UID:         string(object.UID),
			Node:        k.options.Node,
			HostNetwork: object.Spec.HostNetwork,
			Ports:       servedPorts(object),
		},
		containerID:  newContainerID(),
		firstConnect: make(chan *FirstConnect, 1),
		power:        k.power.current(),
	}
	err := box.connect(ctx, object)
	if err == nil {
		err = box.start(ctx, object)
	}
	if err == nil {
		k.keep(box)
		return box, nil
	}
	if box.power.Err() != nil {
		return nil, errors.Join(err, box.destroy())
	}
	if box.process != nil {
		box.process.Kill()
	}
	// What is undone must be, also when the pod is to end.
	return nil, errors.Join(err, box.disconnect(context.WithoutCancel(ctx)))
}

// destroy ends the program at once, and takes the pod's namespace away without CNI DEL.
func (b *sandbox) destroy() error {
	if b.process != nil {
		b.process.Kill()
	}
	if b.config == nil {
		return nil
	}
	return namespace.Delete(b.pod.NetNS(b.kubelet.options.Lab))
}

// newContainerID is as long as containerd's are.
func newContainerID() string {
	var id [32]byte
	_, _ = rand.Read(id[:]) // it doesn't fail
	return hex.EncodeToString(id[:])
}

// connect gives the pod its network.
func (b *sandbox) connect(ctx context.Context, object *corev1.Pod) error {
	if b.pod.HostNetwork {
		b.pod.Addresses = b.kubelet.options.Addrs()
		return b.kubelet.save(b.pod)
	}
	var err error
	if b.network, err = b.kubelet.configuration(); err != nil {
		return err
	}
	capabilities, err := capabilityArgs(object)
	if err != nil {
		return err
	}
	space := b.pod.NetNS(b.kubelet.options.Lab)
	if err := namespace.New(space); err != nil {
		return err
	}
	b.config = &libcni.RuntimeConf{
		ContainerID: b.containerID,
		NetNS:       namespace.Path(space),
		IfName:      "eth0",
		Args: [][2]string{ // as containerd and CRI-O give them
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", object.Namespace},
			{"K8S_POD_NAME", object.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", b.containerID},
			{"K8S_POD_UID", b.pod.UID},
		},
		CapabilityArgs: capabilities,
	}
	b.pod.Addresses, err = b.add(ctx)
	if err != nil {
		return fmt.Errorf("CNI ADD: %w", err)
	}
	return b.kubelet.save(b.pod)
}

// add runs the plugin in the node's namespace, as a runtime does, and returns the pod's addresses.
func (b *sandbox) add(ctx context.Context) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, cniTimeout)
	defer cancel()
	var addrs []netip.Addr
	err := b.kubelet.onNode(func() error {
		answer, err := b.kubelet.cni.AddNetworkList(ctx, b.network, b.config)
		if err != nil {
			return err
		}
		result, err := types100.GetResult(answer)
		if err != nil {
			return err
		}
		for _, ip := range result.IPs {
			addr, ok := netip.AddrFromSlice(ip.Address.IP)
			if !ok {
				return fmt.Errorf("address %v", ip.Address)
			}
			addrs = append(addrs, addr.Unmap())
		}
		return nil
	})
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address in the result")
	}
	return addrs, err
}

// start runs the pod's program and returns when its ports are open.
func (b *sandbox) start(ctx context.Context, object *corev1.Pod) error {
	args := []string{"--" + podprogram.NameFlag, b.pod.Name}
	if first := object.Annotations[FirstConnectAnnotation]; first != "" {
		args = append(args, "--"+podprogram.FirstConnectFlag, first)
	}
	for _, port := range b.pod.Ports {
		args = append(args, "--"+podprogram.ServeFlag, port.String())
	}
	reports, output, err := os.Pipe()
	if err != nil {
		return err
	}
	b.process, err = b.kubelet.options.Spawner.Start(process.Program{
		Name:   "pod " + b.pod.Name,
		Path:   b.kubelet.options.Program,
		Args:   args,
		In:     b.pod.NetNS(b.kubelet.options.Lab),
		Stdout: output,
		Log:    filepath.Join(b.kubelet.options.Dir, "pods.log"),
	})
	if err := errors.Join(err, output.Close()); err != nil { // the process has its own
		return errors.Join(err, reports.Close())
	}
	serving := make(chan struct{})
	go b.read(reports, serving)
	timer := time.NewTimer(servingTimeout)
	defer timer.Stop()
	select {
	case <-serving:
		return nil
	case <-b.process.Exited:
		return b.process.Failure()
	case <-timer.C:
		return errors.New("the pod's program didn't open its ports in time")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read takes the program's reports until it ends.
func (b *sandbox) read(reports io.ReadCloser, serving chan<- struct{}) {
	defer func() { _ = reports.Close() }()
	for lines := bufio.NewScanner(reports); lines.Scan(); {
		var report podprogram.Report
		if err := json.Unmarshal(lines.Bytes(), &report); err != nil {
			continue // not the program's
		}
		if report.Serving {
			close(serving)
		}
		if report.FirstConnect != nil {
			b.firstConnect <- report.FirstConnect
		}
	}
}

// remove takes the pod's network away by CNI DEL. It may be called again when it has failed.
func (b *sandbox) remove(ctx context.Context) error {
	ctx, done := b.kubelet.power.use(ctx)
	defer done()
	return b.disconnect(ctx)
}

func (b *sandbox) disconnect(ctx context.Context) error {
	if b.config != nil {
		ctx, cancel := context.WithTimeout(ctx, cniTimeout)
		defer cancel()
		err := b.kubelet.onNode(
			func() error { return b.kubelet.cni.DelNetworkList(ctx, b.network, b.config) },
		)
		if err != nil {
			return fmt.Errorf("CNI DEL: %w", err)
		}
		if err := namespace.Delete(b.pod.NetNS(b.kubelet.options.Lab)); err != nil {
			return err
		}
	}
	b.kubelet.release(b)
	return b.kubelet.unsave(b.pod)
}
