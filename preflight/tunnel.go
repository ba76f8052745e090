package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/overlay"
)

func checkTunnel(o Options) Result {
	if o.Config.Backend != overlay.VXLAN {
		return passed("none with %s", o.Config.Backend)
	}
	f, _ := foresee(o) // why the node can't take part is another check's
	var err error
	if !f.HasTunnel && f.InTheWay == "" && f.Sharer == "" {
		err = bindUDP(o.Config.Port, families(f.Local))
	}
	return judgeTunnel(o.Config, f, err)
}

// judgeTunnel says whether the tunnel can have its port. A device of an agent has it already.
func judgeTunnel(c overlay.Config, f overlay.Foresight, err error) Result {
	elsewhere := "or set another Backend.Port and Backend.VNI in net-conf.json"
	switch {
	case f.InTheWay != "":
		return failed("remove that link when its network is gone (ip link del), "+elsewhere,
			"%s, where the tunnel is to have VNI %d and port %d", f.InTheWay, c.VNI, c.Port)
	case f.HasTunnel:
		return passed("%s is there, with UDP port %d", c.Device(), c.Port)
	case f.Sharer != "":
		return passed("VNI %d is free, and UDP port %d is shared with link %s", c.VNI, c.Port,
			f.Sharer)
	case errors.Is(err, unix.EADDRINUSE):
		return failed(fmt.Sprintf("end the program that has it (ss -ulpn sport = :%d), %s", c.Port,
			elsewhere), "UDP port %d is in use", c.Port)
	case err != nil:
		return warned(fmt.Sprintf("see whether it is free (ss -ulpn sport = :%d)", c.Port),
			"UDP port %d can't be tried: %v", c.Port, err)
	}
	return passed("VNI %d and UDP port %d are free", c.VNI, c.Port)
}

// families are those of the tunnel's socket: its address' alone. As long as that isn't known, both.
func families(local netip.Addr) []string {
	switch {
	case local.Is4():
		return []string{"udp4"}
	case local.Is6():
		return []string{"udp6"}
	}
	return []string{"udp4", "udp6"}
}

// bindUDP has a port for a moment, of these families, as far as they are there.
func bindUDP(port uint16, families []string) error {
	for _, family := range families {
		conn, err := new(net.ListenConfig).ListenPacket(context.Background(), family,
			fmt.Sprintf(":%d", port))
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
			continue // no IPv6 here
		}
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}
