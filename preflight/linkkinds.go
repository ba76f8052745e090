package preflight

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/internal/names"
	"github.com/sluice-net/sluice/overlay"
)

func checkLinkKinds(o Options) Result {
	kinds := []string{"veth", "ifb"}
	if o.Config.Backend == overlay.VXLAN {
		kinds = append(kinds, "vxlan")
	}
	has := map[string]bool{}
	for _, kind := range kinds {
		known, err := knowsKind(kind)
		if err != nil {
			return warned("run this as root", "whether there is %s can't be asked: %v", kind, err)
		}
		has[kind] = known
	}
	return judgeKinds(kinds, has)
}

// judgeKinds says what the kinds of links mean that there are. Without ifb there is all but one
// direction of one annotation.
func judgeKinds(kinds []string, has map[string]bool) Result {
	var lacks []string
	for _, kind := range kinds {
		if !has[kind] {
			lacks = append(lacks, kind)
		}
	}
	switch remedy := "boot a kernel with them, or install its package of modules"; {
	case len(lacks) == 0:
		return passed("the kernel makes %s", strings.Join(kinds, ", "))
	case len(lacks) == 1 && lacks[0] == "ifb":
		return warned(remedy, "the kernel has no links of kind ifb: what pods send isn't limited "+
			"by the annotation kubernetes.io/egress-bandwidth")
	default:
		return failed(remedy, "the kernel has no links of kind %s", strings.Join(lacks, ", "))
	}
}

// knowsKind asks for a link of a kind with an address that none can have. A kernel that knows the
// kind refuses the address, which it checks first, and another one the kind; neither makes a link.
func knowsKind(kind string) (bool, error) {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK,
		unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(names.TrialLink+".k")))
	request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, make([]byte, 6)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	case err == nil:
		return false, errors.New("the kernel took a link with an impossible address")
	}
	return false, fmt.Errorf("asking for a link with an impossible address: %w", err)
}
