package plugin

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	cnins "github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
)

// modePolicy is the mode of the plugin behind another one, which wires the pods.
const modePolicy = "policy"

// Config is the plugin's part of the network configuration.
type Config struct {
	types.PluginConf

	Socket   string `json:"socket"`   // of the agent
	StateDir string `json:"stateDir"` // of the agent

	// Mode is empty where the plugin wires the pod. "policy" is for a pod that another plugin wired
	// before: then this plugin only waits for the pod's policy.
	Mode string `json:"mode"`

	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
}

// parseConfig reads what every verb needs; unknown keys are for others.
func parseConfig(stdin []byte) (Config, error) {
	config := Config{Socket: cni.DefaultSocket, StateDir: cni.DefaultStateDir}
	if err := json.Unmarshal(stdin, &config); err != nil {
		return Config{}, types.NewError(types.ErrDecodingFailure,
			"decoding the network configuration", err.Error())
	}
	for _, of := range []struct{ key, path string }{{"socket", config.Socket},
		{"stateDir", config.StateDir}} {
		if !filepath.IsAbs(of.path) {
			return Config{}, types.NewError(types.ErrInvalidNetworkConfig,
				of.key+" isn't an absolute path", cni.Quote(of.path))
		}
	}
	return config, nil
}

// parsePrevResult leaves PrevResult nil where there is none.
func (c *Config) parsePrevResult() error {
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return types.NewError(types.ErrDecodingFailure, "decoding prevResult", err.Error())
	}
	return nil
}

// podArgs are the CNI_ARGS that kubelet's runtimes pass.
type podArgs struct {
	types.CommonArgs

	//nolint:revive // the library finds a field by the name of its argument
	K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID,
	K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString
}

// addRequest is an ADD's request to the agent, with all fields checked.
func addRequest(config Config, args *skel.CmdArgs) (cni.AddRequest, error) {
	request, err := podRequest(args)
	if err != nil {
		return cni.AddRequest{}, err
	}
	request.Network, request.Netns = config.Name, args.Netns
	request.HostPorts, request.Bandwidth, err = parseRuntimeConfig(config.RuntimeConfig)
	if err != nil {
		return cni.AddRequest{}, err
	}
	switch config.Mode {
	case "":
		if config.PrevResult != nil {
			return cni.AddRequest{}, types.NewError(types.ErrInvalidNetworkConfig,
				"prevResult: another plugin has wired the pod",
				`without "mode":"policy" sluice wires pods itself, and is the first of its list`)
		}
	case modePolicy:
		request.PolicyOnly = true
		if request.Addresses, err = podAddresses(config.PrevResult, args.IfName); err != nil {
			return cni.AddRequest{}, err
		}
		if len(request.HostPorts) > 0 || request.Bandwidth != (cni.Bandwidth{}) {
			return cni.AddRequest{}, types.NewError(types.ErrUnsupportedField,
				`runtimeConfig belongs to the plugin that wires the pod`,
				"runtimeConfig: "+cni.Quote(string(config.RuntimeConfig)))
		}
	default:
		return cni.AddRequest{}, types.NewError(types.ErrInvalidNetworkConfig,
			`mode isn't "policy" or absent`, cni.Quote(config.Mode))
	}
	return request, request.Validate()
}

// podRequest is a request for the pod that the arguments name.
func podRequest(args *skel.CmdArgs) (cni.AddRequest, error) {
	var pod podArgs
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return cni.AddRequest{}, types.NewError(types.ErrInvalidEnvironmentVariables,
			"reading CNI_ARGS", err.Error())
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
		return cni.AddRequest{}, types.NewError(types.ErrInvalidEnvironmentVariables,
			"CNI_ARGS lack what names the pod",
			strings.Join(missing, ", "))
	}
	request := cni.AddRequest{
		ContainerID:  args.ContainerID,
		IfName:       args.IfName,
		PodNamespace: string(pod.K8S_POD_NAMESPACE),
		PodName:      string(pod.K8S_POD_NAME),
		PodUID:       string(pod.K8S_POD_UID),
	}
	return request, request.Validate()
}

// openPodNS opens the pod's network namespace, which must not be our own.
func openPodNS(path string) (ns.NetNS, error) {
	podNS, err := ns.GetNS(path)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "opening the pod's network namespace",
			err.Error())
	}
	same, checkErr := cnins.CheckNetNS(path)
	if checkErr != nil || same {
		_ = podNS.Close() // it was only read
		return nil, types.NewError(types.ErrInvalidNetNS,
			"the pod's network namespace is the node's own", path)
	}
	return podNS, nil
}

// inode is the inode number of a network namespace, which distinguishes it from others.
func inode(netns ns.NetNS) (uint64, error) {
	var file unix.Stat_t
	if err := unix.Fstat(int(netns.Fd()), &file); err != nil {
		return 0, fmt.Errorf("looking at the pod's network namespace: %w", err)
	}
	return file.Ino, nil
}

// currentResult converts a result to the latest version. Errors are of the CNI specification.
func currentResult(prev types.Result) (result *types100.Result, err error) {
	invalid := func(reason string) error {
		return types.NewError(types.ErrDecodingFailure, "decoding prevResult", reason)
	}
	defer func() {
		if recover() != nil { // the library trusts that nothing in the lists is null
			result, err = nil, invalid("null in one of its lists")
		}
	}()
	if result, err = types100.GetResult(prev); err != nil {
		return nil, invalid(err.Error())
	}
	isNull := slices.Contains(result.IPs, nil) || slices.Contains(result.Interfaces, nil) ||
		slices.Contains(result.Routes, nil)
	if isNull {
		return nil, invalid("null in one of its lists")
	}
	return result, nil
}

// podAddresses are those that a result gives to the pod's own interface. Errors are of the CNI
// specification.
func podAddresses(prev types.Result, ifName string) ([]netip.Addr, error) {
	invalid := func(reason string) error {
		return types.NewError(types.ErrInvalidNetworkConfig,
			"prevResult doesn't say what the pod has", reason)
	}
	if prev == nil {
		return nil, invalid("there is none")
	}
	result, err := currentResult(prev)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for i, ip := range result.IPs {
		if ip.Interface != nil {
			if *ip.Interface < 0 || *ip.Interface >= len(result.Interfaces) {
				return nil, invalid(fmt.Sprintf("ips[%d].interface: %d of %d", i, *ip.Interface,
					len(result.Interfaces)))
			}
			if of := result.Interfaces[*ip.Interface]; of.Sandbox == "" || of.Name != ifName {
				continue
			}
		}
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, addr.Unmap())
	}
	if err := cni.ValidateAddresses(addrs); err != nil {
		return nil, invalid(err.Error())
	}
	return addrs, nil
}
