package network

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// agentAddress is where an agent serves its health, on its node's loopback.
const agentAddress = "127.0.0.1:9808"

// metric reads a value of a node's agent; -1 if it can't be had.
func (w *world) metric(node, name string) float64 {
	w.t.Helper()
	answer, err := w.ask(node, "/metrics")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(answer) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return n
			}
		}
	}
	return -1
}

// ask sends a GET from the agent's own node, and returns all of the answer.
func (w *world) ask(node, path string) (string, error) {
	w.t.Helper()
	var conn net.Conn
	err := w.Do(node, func() (err error) {
		conn, err = net.DialTimeout("tcp", agentAddress, time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(settleTime)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// awaitPodMTU waits until new pods of every node get this MTU.
func (w *world) awaitPodMTU(mtu int) {
	w.t.Helper()
	for _, node := range w.NodeNames() {
		w.eventually(settleTime, fmt.Sprintf("new pods of %s to get an MTU of %d", node, mtu),
			func() bool {
				return w.metric(node, "sluice_pod_mtu_bytes") == float64(mtu)
			})
	}
}
