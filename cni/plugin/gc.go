package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
)

// GC removes all attachments to this network that the runtime doesn't list as valid. It reports
// failures after it has done the rest.
func (p Plugin) GC(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	valid, err := validAttachments(args.StdinData)
	if err != nil {
		return err
	}
	// after that the agent isn't asked any more
	ctx, cancel := context.WithTimeout(context.Background(), p.delTimeout)
	defer cancel()
	// The agent reports files that are no record of an attachment.
	known, _, err := cni.OpenRecords(config.StateDir).ReadAll()
	if err != nil {
		return types.NewError(types.ErrTryAgainLater, "what is attached can't be read", err.Error())
	}
	var failures []string
	for _, a := range known {
		isOurs := a.Network == config.Name || a.Network == "" // which older agents didn't write
		if !isOurs || valid[types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName}] {
			continue
		}
		stale := &skel.CmdArgs{ContainerID: a.ContainerID, IfName: a.IfName}
		if err := p.detach(ctx, config, stale, a.Interface); err != nil {
			failures = append(failures, fmt.Sprintf("%s: %s", a.ID(), err))
		}
	}
	if len(failures) > 0 {
		return types.NewError(types.ErrTryAgainLater, "some attachments can't be given up",
			strings.Join(failures, "\n"))
	}
	return nil
}

// validAttachments reads the runtime's list. A missing list is an error, as every pod of the node
// would lose its network; an empty list is none.
func validAttachments(stdin []byte) (map[types.GCAttachment]bool, error) {
	const key = "cni.dev/valid-attachments"
	var config map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &config); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "decoding the network configuration",
			err.Error())
	}
	raw, isThere := config[key]
	if !isThere {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, key+" is missing",
			"GC needs to know which attachments to keep")
	}
	var list []types.GCAttachment
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "decoding "+key, err.Error())
	}
	valid := map[types.GCAttachment]bool{}
	for i, a := range list {
		// The pod that this entry means would lose its network.
		if a.ContainerID == "" || a.IfName == "" {
			return nil, types.NewError(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("%s[%d] names no attachment", key, i),
				fmt.Sprintf("containerID %s, ifname %s", cni.Quote(a.ContainerID),
					cni.Quote(a.IfName)))
		}
		valid[a] = true
	}
	return valid, nil
}

// statusTimeout is how long an agent may take to say that it lives.
const statusTimeout = 2 * time.Second

// Status fails while the node should carry no pod at all. It doesn't ask the agent while the
// agent's file says that all is well: a busy agent, or one that is being replaced, is no reason to
// fail.
func (p Plugin) Status(args *skel.CmdArgs) error {
	config, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	fromFile := statusByFile(config.StateDir)
	if fromFile == nil {
		return nil
	}
	// The agent may be well and its file system not.
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	fromAgent := cni.NewClient(config.Socket).Call(ctx, cni.PathStatus, cni.StatusRequest{},
		new(cni.StatusAnswer))
	if errors.Is(fromAgent, cni.ErrNoAgent) {
		fromFile.Details += "; " + fromAgent.Error()
		return fromFile
	}
	return fromAgent
}

// statusByFile is the status by the agent's files in its state directory.
func statusByFile(stateDir string) *types.Error {
	last, err := cni.ReadHeartbeat(stateDir)
	if err != nil {
		return types.NewError(cni.CodeNotAvailable, "the node can't take pods", err.Error())
	}
	return last.Status(cni.SinceBoot())
}
