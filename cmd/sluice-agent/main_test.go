package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

func TestParseFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	silenceStderr(t)
	o, err := parseFlags([]string{"--node-name=n1", "--state-dir=/run/x"})
	if err != nil {
		t.Fatal(err)
	}
	if o.node != "n1" || o.socket != "/run/x/cni.sock" || o.podToNode != "policy" ||
		o.httpAddress != "127.0.0.1:9808" {
		t.Errorf("defaults: %+v", o)
	}
	for want, args := range map[string][]string{
		"--node-name: expected":           {},
		`--pod-to-node="maybe": expected`: {"--node-name=n1", "--pod-to-node=maybe"},
		"--log-group=70000: expected":     {"--node-name=n1", "--log-group=70000"},
		"--log-per-second=1001: expected": {"--node-name=n1", "--log-per-second=1001"},
		"--tunnel-probe-interval=500ms: expected 1s to 10m0s, or 0": {
			"--node-name=n1", "--tunnel-probe-interval=500ms"},
		"--tunnel-probe-interval=-1s: expected": {"--node-name=n1", "--tunnel-probe-interval=-1s"},
		"--api-silence=1m0s: expected":          {"--node-name=n1", "--api-silence=1m"},
		`--forbidden-host-ports: "80": expected a port with its protocol, such as 10250/tcp, ` +
			"or agent, or tunnel": {"--node-name=n1", "--forbidden-host-ports=1/tcp,80"},
		`argument "run": expected`:             {"--node-name=n1", "run"},
		`invalid value "many" for flag -log-g`: {"--node-name=n1", "--log-group=many"},
	} {
		if _, err := parseFlags(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one with %q", args, err, want)
		}
	}
}

func TestForbiddenHostPorts(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		ports  string
		tunnel bool
	}{
		"": {"[{10250 tcp} {6443 tcp} {2379 tcp} {2380 tcp} {9808 tcp}]", true},
		"--http-address=[::1]:9090": {
			"[{10250 tcp} {6443 tcp} {2379 tcp} {2380 tcp} {9090 tcp}]", true},
		"--http-address=0": {
			"[{10250 tcp} {6443 tcp} {2379 tcp} {2380 tcp}]", true},
		"--forbidden-host-ports=":              {"[]", false},
		"--forbidden-host-ports=53/udp, agent": {"[{53 udp} {9808 tcp}]", false},
	} {
		o, err := parseFlags(append([]string{"--node-name=n1"},
			strings.FieldsFunc(args, func(r rune) bool { return r == 0 })...))
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		ports, tunnel, err := o.reservedPorts()
		if err != nil || fmt.Sprint(ports) != want.ports || tunnel != want.tunnel {
			t.Errorf("%s: %v, tunnel %t, error %v, want %+v", args, ports, tunnel, err, want)
		}
	}
}

func TestNodeNameFromTheEnvironment(t *testing.T) {
	t.Setenv("NODE_NAME", "n2")
	if o, err := parseFlags(nil); err != nil || o.node != "n2" {
		t.Errorf("%+v, error %v", o, err)
	}
}

// silenceStderr: package flag prints its usage on every error.
func silenceStderr(t *testing.T) {
	t.Helper()
	stderr := os.Stderr
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr = write
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, read) // what is printed doesn't matter
	}()
	t.Cleanup(func() {
		os.Stderr = stderr
		_ = write.Close()
		<-drained
		_ = read.Close()
	})
}
