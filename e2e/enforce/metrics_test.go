package enforce

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-net/sluice/e2e/lab"
)

// agentAddress is where an agent serves its health, on its node's loopback.
const agentAddress = "127.0.0.1:9808"

// healthAndMetrics: every agent says that it is well, and has counted and timed what the tests
// before this one made it commit.
func healthAndMetrics(w *world) {
	for _, node := range w.Nodes() {
		for _, path := range []string{"/healthz", "/readyz"} {
			if answer := w.ask(node, path); !strings.Contains(answer, " 200 OK") {
				w.t.Errorf("%s %s: %s", node.Name(), path, answer)
			}
		}
		metrics := w.ask(node, "/metrics")
		if n := metric(metrics, "sluice_event_to_commit_seconds_count"); n < 1 {
			w.t.Errorf("%s has timed %v commits", node.Name(), n)
		}
		if n := metric(metrics, "sluice_endpoints_enforced"); n != 2 {
			w.t.Errorf("%s enforces %v endpoints, want 2", node.Name(), n)
		}
		if n := metric(metrics, "sluice_apply_errors_total"); n != 0 {
			w.t.Errorf("%s failed %v times to write the ruleset", node.Name(), n)
		}
	}
}

// metric reads one value; -1 if it isn't there.
func metric(metrics, name string) float64 {
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return n
			}
		}
	}
	return -1
}

// ask sends a GET from the agent's own node, and returns all of the answer.
func (w *world) ask(node *lab.Node, path string) string {
	w.t.Helper()
	var answer []byte
	w.must(node.Do(func() error {
		conn, err := net.DialTimeout("tcp", agentAddress, time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(settleTime)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path); err != nil {
			return err
		}
		answer, err = io.ReadAll(conn)
		return err
	}))
	return string(answer)
}
