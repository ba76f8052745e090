package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/cni/podlink"
	"github.com/sluice-net/sluice/link"
)

// Check compares the pod's state with what ADD made, and lists the differences, a line each. It
// changes nothing.
func (p Plugin) Check(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := errors.Join(cni.ValidateID(args.ContainerID, args.IfName),
		config.parsePrevResult()); err != nil {
		return err
	}
	request := cni.CheckRequest{ContainerID: args.ContainerID, IfName: args.IfName}
	if request.Addresses, err = podAddresses(config.PrevResult, args.IfName); err != nil {
		return err
	}
	podNS, err := openPodNS(args.Netns)
	if err != nil {
		return err
	}
	defer podNS.Close()
	ctx, cancel := context.WithTimeout(context.Background(), p.delTimeout)
	defer cancel()
	var answer cni.CheckAnswer
	if err := cni.NewClient(config.Socket).Call(ctx, cni.PathCheck, request, &answer); err != nil {
		return addError(err, nil)
	}
	differences := answer.Differences
	if answer.Interface != "" {
		found, err := checkWiring(answer.AddAnswer, config, args, podNS)
		if err != nil {
			return types.NewError(types.ErrTryAgainLater, "the pod's network can't be looked at",
				err.Error())
		}
		differences = append(differences, found...)
	}
	if len(differences) > 0 {
		return types.NewError(cni.CodeDiffers, "the pod's network isn't as ADD made it",
			strings.Join(differences, "\n"))
	}
	return nil
}

// checkWiring looks at both ends. The pod's name and its host ports are compared only if the
// runtime gives them: it may leave out at CHECK what it gave at ADD.
func checkWiring(
	answer cni.AddAnswer, config Config, args *skel.CmdArgs, podNS ns.NetNS,
) ([]string, error) {
	label := ""
	if pod, err := podRequest(args); err == nil {
		label = cni.PodLabel(pod.PodNamespace, pod.PodName)
	}
	w, err := wiringOf(answer, args.IfName, label)
	if err != nil {
		return nil, fmt.Errorf("%w that makes sense: %w", cni.ErrNoAgent, err)
	}
	if ports, _, err := parseRuntimeConfig(config.RuntimeConfig); err == nil {
		w.HasHostPort4 = cni.HasHostPort4(ports)
	}
	result, err := currentResult(config.PrevResult)
	if err != nil {
		return nil, err
	}
	chained := podlink.Chained{HostMTU: mtuOf(result, w.HostName), PodMTU: mtuOf(result, w.PodName)}
	for _, route := range result.Routes {
		if to := link.Prefix(&route.Dst); to.IsValid() {
			out := podlink.Route{To: to, Via: link.Addr(route.GW)}
			chained.PodRoutes = append(chained.PodRoutes, out)
		}
	}
	return podlink.Differences(w, chained, podNS)
}

// mtuOf is an interface's MTU in a result, or 0.
func mtuOf(result *types100.Result, name string) int {
	for _, i := range result.Interfaces {
		if i.Name == name && i.Mtu != 0 {
			return i.Mtu
		}
	}
	return 0
}
