package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	"go4.org/netipx"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
	"github.com/sluice-net/sluice/link"
)

// Plugin has the time limit of a verb. Runtimes give up after one minute or more.
type Plugin struct {
	addTimeout  time.Duration
	delTimeout  time.Duration
	undoTimeout time.Duration // for what a failed ADD has to undo
}

// New makes a plugin that gives up before runtimes do.
func New() Plugin {
	return Plugin{addTimeout: 50 * time.Second, delTimeout: 20 * time.Second,
		undoTimeout: 5 * time.Second}
}

// Funcs are the plugin's verbs, for skel.PluginMainFuncs. They work in the network namespace of the
// calling thread, and print the result of ADD.
func Funcs() skel.CNIFuncs {
	p := New()
	return skel.CNIFuncs{
		Add: func(args *skel.CmdArgs) error {
			result, err := p.Add(args)
			if err != nil {
				return err
			}
			return result.Print()
		},
		Check:  p.Check,
		Del:    p.Del,
		GC:     p.GC,
		Status: p.Status,
	}
}

// Versions are the versions of the specification that the plugin speaks.
func Versions() version.PluginInfo { return version.PluginSupports("0.4.0", "1.0.0", "1.1.0") }

// Add puts a pod on the network. Its result has the version of the configuration.
func (p Plugin) Add(args *skel.CmdArgs) (types.Result, error) {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return nil, err
	}
	if err := config.parsePrevResult(); err != nil {
		return nil, err
	}
	request, err := addRequest(config, args)
	if err != nil {
		return nil, err
	}
	podNS, err := openPodNS(args.Netns)
	if err != nil {
		return nil, err
	}
	defer podNS.Close()
	if request.NetnsInode, err = inode(podNS); err != nil {
		return nil, err
	}
	work := p.attach
	if request.PolicyOnly {
		work = p.attachPolicy
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.addTimeout)
	defer cancel()
	result, err := work(ctx, config, request, podNS)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.undoTimeout)
		defer cancel()
		return nil, addError(err, p.detach(ctx, config, args, request.HostInterface()))
	}
	return result, nil
}

// attach removes old links, asks the agent, and only then makes the link.
func (p Plugin) attach(
	ctx context.Context, config Config, request cni.AddRequest, podNS ns.NetNS,
) (types.Result, error) {
	// A link of this name is of an older sandbox of the pod, or of an ADD that was killed.
	if err := podlink.Delete(request.HostInterface(), nil); err != nil {
		return nil, err
	}
	var answer cni.AddAnswer
	if err := cni.NewClient(config.Socket).Call(ctx, cni.PathAdd, request, &answer); err != nil {
		return nil, err
	}
	w, err := wiringOf(answer, request.IfName, cni.PodLabel(request.PodNamespace, request.PodName))
	if err != nil {
		return nil, fmt.Errorf("%w that makes sense: %w", cni.ErrNoAgent, err)
	}
	w.HasHostPort4 = cni.HasHostPort4(request.HostPorts)
	if err := podlink.Wire(ctx, podNS, w); err != nil {
		return nil, err
	}
	r := result(w, podNS.Path())
	r.CNIVersion, r.DNS = config.CNIVersion, config.DNS
	return r, nil
}

// attachPolicy waits for the policy of a pod that another plugin has wired, and passes on that
// plugin's result.
func (p Plugin) attachPolicy(
	ctx context.Context, config Config, request cni.AddRequest, _ ns.NetNS,
) (types.Result, error) {
	err := cni.NewClient(config.Socket).Call(ctx, cni.PathAdd, request, new(cni.AddAnswer))
	if err != nil {
		return nil, err
	}
	return config.PrevResult, nil
}

// addError is a failed ADD's error: what the agent said, or "try again later", with what couldn't
// be undone.
func addError(err, undoErr error) error {
	failure := types.NewError(types.ErrTryAgainLater, "the pod can't be put on the network now",
		err.Error())
	if fromAgent := new(types.Error); errors.As(err, &fromAgent) {
		failure = types.NewError(fromAgent.Code, fromAgent.Msg, fromAgent.Details)
	}
	if undoErr != nil {
		failure.Details = strings.TrimPrefix(failure.Details+"; also: "+undoErr.Error(), "; ")
	}
	return failure
}

// Del takes a pod off the network. It needs neither the agent nor the pod's namespace, and succeeds
// if there is nothing to delete. Configuration that only an ADD needs may be invalid.
func (p Plugin) Del(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := cni.ValidateID(args.ContainerID, args.IfName); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.delTimeout)
	defer cancel()
	return p.detach(ctx, config, args, findHostInterface(config, args))
}

// findHostInterface finds the name of the host end, or returns "": from the pod's name where the
// runtime passes it on, else from the record.
func findHostInterface(config Config, args *skel.CmdArgs) string {
	if request, err := podRequest(args); err == nil {
		return request.HostInterface()
	}
	if a, err := cni.OpenRecords(config.StateDir).Read(args.ContainerID, args.IfName); err == nil {
		return a.Interface
	}
	return ""
}

// detach has the agent cut the pod off and forget the attachment. Without an agent, or if the agent
// knows of no link, it removes the link itself, by either of its ends. Without an agent it also
// removes the record, which the agent notices.
func (p Plugin) detach(
	ctx context.Context, config Config, args *skel.CmdArgs, hostName string,
) error {
	a := cni.Attachment{ContainerID: args.ContainerID, IfName: args.IfName}
	var answer cni.DelAnswer
	agentErr := cni.NewClient(config.Socket).Call(ctx, cni.PathDel,
		cni.DelRequest{ContainerID: a.ContainerID, IfName: a.IfName}, &answer)
	if answer.IsCut {
		return nil
	}
	if config.Mode != modePolicy {
		if err := removeLinks(a, hostName, args.Netns); err != nil {
			return errors.Join(err, agentErr)
		}
	}
	if errors.Is(agentErr, cni.ErrNoAgent) {
		return cni.OpenRecords(config.StateDir).Remove(a.ContainerID, a.IfName)
	}
	return agentErr
}

// removeLinks removes the attachment's link by the host end, where its name is known, and by the
// pod's end, where there is one.
func removeLinks(a cni.Attachment, hostName, netns string) error {
	if hostName != "" {
		if err := podlink.Delete(hostName, a.HostMAC()); err != nil {
			return err
		}
	}
	if netns != "" {
		if err := podlink.DeletePodEnd(netns, a.IfName, a.PodMAC()); err != nil {
			return fmt.Errorf("in the pod's network namespace: %w", err)
		}
	}
	return nil
}

// result is ADD's result: what there is now.
func result(w podlink.Wiring, sandbox string) *types100.Result {
	const podEnd = 1 // among Interfaces
	r := &types100.Result{Interfaces: []*types100.Interface{
		{Name: w.HostName, Mac: w.HostMAC.String(), Mtu: w.MTU},
		{Name: w.PodName, Mac: w.PodMAC.String(), Mtu: w.MTU, Sandbox: sandbox},
	}}
	for _, addr := range w.Addrs {
		gateway := podlink.Gateway(addr)
		r.IPs = append(r.IPs, &types100.IPConfig{
			Interface: types100.Int(podEnd),
			Address:   *netipx.PrefixIPNet(cni.SingleHost(addr)),
			Gateway:   gateway.AsSlice(),
		})
		r.Routes = append(r.Routes, &types.Route{Dst: *netipx.PrefixIPNet(link.Everywhere(addr)),
			GW: gateway.AsSlice()})
	}
	return r
}
