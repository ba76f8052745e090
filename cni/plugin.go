package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	cnins "github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
)

// Where a node's agent keeps its things, unless the configuration says otherwise.
const (
	DefaultStateDir = "/run/sluice"
	DefaultSocket   = DefaultStateDir + "/cni.sock"
)

// Config is the plugin's part of the network configuration.
type Config struct {
	types.PluginConf

	Socket   string `json:"socket"`   // of the agent
	StateDir string `json:"stateDir"` // of the agent
}

// plugin is how long a verb may take. Runtimes give up after one minute or more.
type plugin struct {
	addTimeout  time.Duration
	delTimeout  time.Duration
	undoTimeout time.Duration // for what a failed ADD has to undo
}

func newPlugin() plugin {
	return plugin{addTimeout: 50 * time.Second, delTimeout: 20 * time.Second, undoTimeout: 5 * time.Second}
}

// Funcs are the plugin's verbs, for skel.PluginMainFuncs. They work in the network namespace of the calling thread, and print
// the result of ADD.
func Funcs() skel.CNIFuncs {
	p := newPlugin()
	return skel.CNIFuncs{
		Add: func(args *skel.CmdArgs) error {
			result, err := p.add(args)
			if err != nil {
				return err
			}
			return types.PrintResult(result, result.CNIVersion)
		},
		Del: p.del,
	}
}

// Versions are the versions of the specification that the plugin speaks.
func Versions() version.PluginInfo { return version.PluginSupports("0.4.0", "1.0.0", "1.1.0") }

// add puts a pod on the network. Its result has the version of the configuration.
func (p plugin) add(args *skel.CmdArgs) (*types100.Result, error) {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return nil, err
	}
	request, err := addRequest(args)
	if err != nil {
		return nil, err
	}
	podNS, err := openPodNS(args.Netns)
	if err != nil {
		return nil, err
	}
	defer podNS.Close()

	ctx, cancel := context.WithTimeout(context.Background(), p.addTimeout)
	defer cancel()
	result, err := p.attach(ctx, config, request, podNS)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.undoTimeout)
		defer cancel()
		return nil, addError(err, p.detach(ctx, config, args, request.podInterface()))
	}
	result.CNIVersion = config.CNIVersion
	return result, nil
}

// attach makes room, asks the agent, and only then makes the link.
func (p plugin) attach(ctx context.Context, config Config, request AddRequest, podNS ns.NetNS) (*types100.Result, error) {
	// A link of this name is of an older sandbox of the pod, or of an ADD that was killed.
	if err := deleteHostLink(request.podInterface(), nil); err != nil {
		return nil, err
	}
	var answer AddAnswer
	if err := NewClient(config.Socket).Call(ctx, PathAdd, request, &answer); err != nil {
		return nil, err
	}
	w, err := answer.wiring(request.IfName, podLabel(request.PodNamespace, request.PodName))
	if err != nil {
		return nil, fmt.Errorf("%w that makes sense: %w", ErrNoAgent, err)
	}
	if err := wire(ctx, podNS, w); err != nil {
		return nil, err
	}
	return result(w, podNS.Path()), nil
}

func (r AddRequest) podInterface() string { return InterfaceName(r.PodNamespace, r.PodName, r.IfName) }

// addError is a failed ADD's error: what the agent said, or "try again later", with what couldn't be undone.
func addError(err, undoErr error) error {
	failure := types.NewError(types.ErrTryAgainLater, "the pod can't be put on the network now", err.Error())
	if fromAgent := new(types.Error); errors.As(err, &fromAgent) {
		failure = types.NewError(fromAgent.Code, fromAgent.Msg, fromAgent.Details)
	}
	if undoErr != nil {
		failure.Details = strings.TrimPrefix(failure.Details+"; also: "+undoErr.Error(), "; ")
	}
	return failure
}

// del takes a pod off the network. It needs neither the agent nor the pod's namespace, nor that there is anything to delete.
func (p plugin) del(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := validateID(args.ContainerID, args.IfName); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.delTimeout)
	defer cancel()
	return p.detach(ctx, config, args, hostInterface(config, args))
}

// hostInterface finds the name of the host end, or returns "": from the pod's name where the runtime passes it on, else from the record.
func hostInterface(config Config, args *skel.CmdArgs) string {
	if request, err := addRequest(args); err == nil {
		return request.podInterface()
	}
	if a, err := (records{config.StateDir}).read(args.ContainerID, args.IfName); err == nil {
		return a.Interface
	}
	return ""
}

// detach removes the link, by either of its ends, and then has the agent forget the attachment. Without an agent it removes the record,
// which the agent notices.
func (p plugin) detach(ctx context.Context, config Config, args *skel.CmdArgs, hostName string) error {
	a := Attachment{ContainerID: args.ContainerID, IfName: args.IfName}
	if hostName != "" {
		if err := deleteHostLink(hostName, a.HostMAC()); err != nil {
			return err
		}
	}
	if args.Netns != "" {
		if err := deletePodLink(args.Netns, args.IfName, a.PodMAC()); err != nil {
			return fmt.Errorf("in the pod's network namespace: %w", err)
		}
	}
	err := NewClient(config.Socket).Call(ctx, PathDel, DelRequest{a.ContainerID, a.IfName}, new(DelAnswer))
	if errors.Is(err, ErrNoAgent) {
		return records{config.StateDir}.remove(a.ContainerID, a.IfName)
	}
	return err
}

// result tells the runtime what there is now.
func result(w wiring, sandbox string) *types100.Result {
	const podEnd = 1 // among Interfaces
	r := &types100.Result{Interfaces: []*types100.Interface{
		{Name: w.hostName, Mac: w.hostMAC.String(), Mtu: w.mtu},
		{Name: w.podName, Mac: w.podMAC.String(), Mtu: w.mtu, Sandbox: sandbox},
	}}
	for _, addr := range w.addrs {
		gateway := gatewayOf(addr)
		r.IPs = append(r.IPs, &types100.IPConfig{
			Interface: types100.Int(podEnd),
			Address:   *ipNet(singleHost(addr)),
			Gateway:   gateway.AsSlice(),
		})
		r.Routes = append(r.Routes, &types.Route{Dst: *ipNet(everywhere(addr)), GW: gateway.AsSlice()})
	}
	return r
}

func parseConfig(stdin []byte) (Config, error) {
	config := Config{Socket: DefaultSocket, StateDir: DefaultStateDir}
	if err := json.Unmarshal(stdin, &config); err != nil {
		return Config{}, types.NewError(types.ErrDecodingFailure, "decoding the network configuration", err.Error())
	}
	for key, path := range map[string]string{"socket": config.Socket, "stateDir": config.StateDir} {
		if !filepath.IsAbs(path) {
			return Config{}, types.NewError(types.ErrInvalidNetworkConfig, key+" isn't an absolute path", quote(path))
		}
	}
	return config, nil
}

// podArgs are the CNI_ARGS that kubelet's runtimes pass.
type podArgs struct {
	types.CommonArgs

	//nolint:revive // the library finds a field by the name of its argument
	K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID, K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString
}

// addRequest is a request for the pod that the arguments name, all fields checked.
func addRequest(args *skel.CmdArgs) (AddRequest, error) {
	var pod podArgs
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return AddRequest{}, types.NewError(types.ErrInvalidEnvironmentVariables, "reading CNI_ARGS", err.Error())
	}
	var missing []string
	for _, arg := range []struct {
		name  string
		value types.UnmarshallableString
	}{
		{"K8S_POD_NAMESPACE", pod.K8S_POD_NAMESPACE},
		{"K8S_POD_NAME", pod.K8S_POD_NAME},
		{"K8S_POD_INFRA_CONTAINER_ID", pod.K8S_POD_INFRA_CONTAINER_ID},
		{"K8S_POD_UID", pod.K8S_POD_UID},
	} {
		if arg.value == "" {
			missing = append(missing, arg.name)
		}
	}
	if len(missing) > 0 {
		return AddRequest{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS lack what names the pod",
			strings.Join(missing, ", "))
	}
	request := AddRequest{
		ContainerID:  args.ContainerID,
		IfName:       args.IfName,
		PodNamespace: string(pod.K8S_POD_NAMESPACE),
		PodName:      string(pod.K8S_POD_NAME),
		PodUID:       string(pod.K8S_POD_UID),
	}
	return request, request.validate()
}

// openPodNS opens the pod's network namespace, which must not be our own.
func openPodNS(path string) (ns.NetNS, error) {
	podNS, err := ns.GetNS(path)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "opening the pod's network namespace", err.Error())
	}
	same, checkErr := cnins.CheckNetNS(path)
	if checkErr != nil || same {
		_ = podNS.Close() // it was only read
		return nil, types.NewError(types.ErrInvalidNetNS, "the pod's network namespace is the node's own", path)
	}
	return podNS, nil
}
