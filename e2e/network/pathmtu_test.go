package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/lab"
	"github.com/sluice-net/sluice/test/probe"
)

const (
	narrowMTU  = 1300 // of a link on the way
	wideEnough = 1400 // bytes that every pod's own link carries
)

// onlyUDP isolates every pod. Nothing but UDP is allowed, so that an ICMP packet passes as an error
// alone.
const onlyUDP = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: only-udp}, spec: {podSelector: {}, policyTypes: [Ingress, Egress],
  ingress: [{ports: [{protocol: UDP}]}], egress: [{ports: [{protocol: UDP}]}]}}`

// TestPathMTU: pods that policy isolates learn of a narrow link on the way from each node that
// reports it: the other node, over each backend, also about connections that are masqueraded on one
// node and translated on the next; and their own.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	for _, backend := range []lab.Backend{lab.VXLAN, lab.HostGW} {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "pmtu-"+string(backend), lab.Options{Backend: backend})
			w.run("node1", clientPod)
			w.runWithHostPort("node2", serverPod, hostPort)
			server, err := w.Serve(lab.Outside, probe.UDP, udpPort)
			must(t, err)
			t.Cleanup(server.Close)
			must(t, w.Apply(t.Context(), onlyUDP))
			w.eventually(settleTime, "the policy", func() bool {
				return !w.connects(clientPod, at(w.pod(serverPod).Addr4(), tcpPort))
			})

			flows := map[string][]*bigSender{}
			for _, dst := range w.addrs(serverPod) {
				flows["the other node"] = append(flows["the other node"],
					w.sendsBig(clientPod, serverPod, at(dst, udpPort)))
				node := of(w.NodeAddrs("node2"), dst)
				flows["the other node, behind a host port"] = append(
					flows["the other node, behind a host port"],
					w.sendsBig(clientPod, serverPod, at(node, hostPort)))
				outside := of(w.addrs(lab.Outside), dst)
				flows["its own node"] = append(flows["its own node"],
					w.sendsBig(clientPod, lab.Outside, at(outside, udpPort)))
				w.narrow("node2", dst)
				w.narrow("node1", outside)
			}
			for who, list := range flows {
				for _, f := range list {
					w.learns(f, who)
				}
			}
		})
	}
}

const hostPort = 5353

// runWithHostPort runs a pod whose udpPort is the node's hostPort as well.
func (w *world) runWithHostPort(node, name string, port int32) {
	w.t.Helper()
	pod := podObject(name)
	pod.Spec = corev1.PodSpec{NodeName: node,
		Containers: []corev1.Container{{Name: "main", Image: "none", Ports: []corev1.ContainerPort{
			{ContainerPort: tcpPort},
			{ContainerPort: udpPort, HostPort: port, Protocol: corev1.ProtocolUDP},
		}}}}
	must(w.t, w.Client().Create(w.t.Context(), pod))
	w.waitReady(name)
}

// bigSender is a connected UDP socket that sets DF.
type bigSender struct {
	net.Conn
	name string
}

// sendsBig connects by UDP, and demands that what is answered has come: so every node on the way
// knows the connection, and its end is there. Big datagrams are carried before a link is narrow.
func (w *world) sendsBig(from, to string, dst netip.AddrPort) *bigSender {
	w.t.Helper()
	f := &bigSender{name: fmt.Sprintf("%s -> %s by %s", from, to, dst)}
	must(w.t, w.Do(from, func() (err error) {
		dialer := net.Dialer{Control: dontFragment}
		f.Conn, err = dialer.Dial(network("udp", dst.Addr()), dst.String())
		return err
	}))
	w.t.Cleanup(func() { _ = f.Close() })
	w.eventually(settleTime, f.name+": an answer", func() bool {
		_, err := f.Write([]byte("hello\n"))
		must(w.t, err)
		must(w.t, f.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		n, err := f.Read(make([]byte, 1500))
		return err == nil && n > 0
	})
	if _, err := f.Write(make([]byte, wideEnough)); err != nil {
		w.t.Errorf("control: %s: before a link is narrow: %v", f.name, err)
	}
	return f
}

// narrow makes the last link to an address narrow, beside the routes that the agent looks after.
func (w *world) narrow(node string, dst netip.Addr) {
	w.t.Helper()
	family, prefix := "-4", 32
	if dst.Is6() {
		family, prefix = "-6", 128
	}
	w.sh(node,
		fmt.Sprintf(`link=$(ip -o %[1]s route get %[2]s | sed 's/.* dev \([^ ]*\) .*/\1/')
		ip %[1]s route add %[2]s/%[3]d dev $link mtu lock %[4]d table 50
		ip %[1]s rule add to %[2]s/%[3]d lookup 50 pref 50`, family, dst, prefix, narrowMTU))
}

// learns demands that the sender hears of the narrow link.
func (w *world) learns(f *bigSender, who string) {
	w.t.Helper()
	var err error
	w.eventually(settleTime, fmt.Sprintf("%s to hear from %s of a narrow link", f.name, who),
		func() bool {
			_, err = f.Write(make([]byte, wideEnough))
			return errors.Is(err, unix.EMSGSIZE)
		})
	// What was heard about one datagram may be said when the next one is sent.
	w.eventually(settleTime, fmt.Sprintf("%s to carry what fits", f.name), func() bool {
		_, err = f.Write(make([]byte, narrowMTU-headers6))
		return err == nil
	})
}
