package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Reboot does to the node what a power cut does: its agent, pods and plugins die, and all is gone
// that its kernel knew, or that was on tmpfs: the agent's state and SubnetFile. The CNI
// configuration, libcni's cache and the node's address and MAC stay. It returns when the agent was
// started again; the kubelet starts the pods again, each after a CNI DEL of what it was.
func (n *Node) Reboot() error {
	n.lab.changing.Lock()
	defer n.lab.changing.Unlock()
	n.kubelet.Off("the node was rebooted")
	defer n.kubelet.On()
	err := n.powerOff()
	for _, dir := range []string{nodeSluiceDir, nodeRunDir} {
		dir = filepath.Join(n.dir, dir)
		err = errors.Join(err, os.RemoveAll(dir), os.Mkdir(dir, 0o700))
	}
	if err == nil {
		err = n.powerOn()
	}
	if err == nil && n.lab.options.NoAgent {
		for _, other := range n.lab.nodeStates() {
			err = errors.Join(err, n.lab.routePods(other))
		}
	} else if err == nil {
		err = n.StartAgent()
	}
	if err != nil {
		return fmt.Errorf("rebooting %s: %w", n.name, err)
	}
	return nil
}
