package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/sluice-net/sluice/cni/server"
)

// reservedPorts reads --forbidden-host-ports: which ports no pod gets, and whether the tunnel's is
// among them.
func (o *options) reservedPorts() (ports []server.ReservedPort, tunnel bool, err error) {
	for text := range strings.SplitSeq(o.forbiddenHostPorts, ",") {
		switch text = strings.TrimSpace(text); text {
		case "":
		case "tunnel":
			tunnel = true
		case "agent":
			if _, port, err := net.SplitHostPort(o.httpAddress); err == nil { // 0 is no address
				text = port + "/tcp"
			} else {
				continue
			}
			fallthrough
		default:
			port, err := server.ParseReservedPort(text)
			if err != nil {
				return nil, false,
					fmt.Errorf("--forbidden-host-ports: %w, or agent, or tunnel", err)
			}
			ports = append(ports, port)
		}
	}
	return ports, tunnel, nil
}
