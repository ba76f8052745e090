package main

import (
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
	if o.node != "n1" || o.socket != "/run/x/cni.sock" || o.podToNode != "policy" || o.httpAddress != "127.0.0.1:9808" {
		t.Errorf("defaults: %+v", o)
	}
	for want, args := range map[string][]string{
		"--node-name: expected":                {},
		`--pod-to-node="maybe": expected`:      {"--node-name=n1", "--pod-to-node=maybe"},
		"--log-group=70000: expected":          {"--node-name=n1", "--log-group=70000"},
		"--log-per-second=1001: expected":      {"--node-name=n1", "--log-per-second=1001"},
		`argument "run": expected`:             {"--node-name=n1", "run"},
		`invalid value "many" for flag -log-g`: {"--node-name=n1", "--log-group=many"},
	} {
		if _, err := parseFlags(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one with %q", args, err, want)
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
