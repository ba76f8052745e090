package server

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// TestHostPortHasOneOwner: two pods can't have one, and the next may have it as soon as the DEL of
// the last has returned.
func TestHostPortHasOneOwner(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	with := func(container string, ports ...cni.HostPort) cni.AddRequest {
		r := cnitest.RequestFor(container, "pod-"+container)
		r.HostPorts = ports
		return r
	}
	web := cni.HostPort{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}
	webOnOne := web
	webOnOne.HostIP = netip.MustParseAddr("192.0.2.1")
	a.MustAdd(with("c1", web))
	a.MustAdd(with("c1", web)) // again
	_, err := a.Add(with("c2", webOnOne))
	cnitest.MustFail(t, err, cni.CodeHostPortTaken, "host port tcp 192.0.2.1:80 is taken",
		"by pod dev/pod-c1")
	a.Expect("c1/eth0")
	if got := a.server.Attachments()[0].HostPorts; len(got) != 1 || got[0] != web {
		t.Errorf("the attachment has %v", got)
	}
	for i := range 20 {
		a.MustDel(with(fmt.Sprintf("c%d", i+1)))
		a.MustAdd(with(fmt.Sprintf("c%d", i+2), webOnOne)) // waits for the rules of the last to go
	}
	a.Expect("c21/eth0")
	_, err = a.Add(with("c30", cni.HostPort{HostPort: 0, ContainerPort: 1, Protocol: "tcp"}))
	cnitest.MustFail(t, err, types.ErrInvalidNetworkConfig, "portMappings[0].hostPort: 0")
}
