package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpecFile(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args      []string
		file      string
		isProcess bool
	}{
		{args: []string{"--root", "/r", "--log", "/l", "create", "--bundle", "/b", "--pid-file",
			"/p", "id"}, file: "/b/config.json"},
		{args: []string{"create", "--bundle=/b", "id"}, file: "/b/config.json"},
		{args: []string{"run", "id"}, file: "config.json"},
		{args: []string{"--root", "/r", "exec", "--process", "/p.json", "--detach", "id"},
			file: "/p.json", isProcess: true},
		{args: []string{"--version"}},
	} {
		file, isProcess := specFile(test.args)
		if file != test.file || isProcess != test.isProcess {
			t.Errorf("%q: got %q, %t; want %q, %t", test.args, file, isProcess, test.file,
				test.isProcess)
		}
	}
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	const process = `{"args":["/sbin/init"],"rlimits":[{"type":"RLIMIT_NOFILE","hard":1048576,"soft":1048576}],"oomScoreAdj":-500,
		"capabilities":{"bounding":["CAP_NET_ADMIN","CAP_SYS_RESOURCE"],"effective":["CAP_SYS_RESOURCE"]}}`
	const lowered = `{"args":["/sbin/init"],"capabilities":{"bounding":["CAP_NET_ADMIN"],"effective":[]}}`
	for _, test := range []struct {
		name, before, after string
		isProcess           bool
	}{
		{name: "bundle", before: `{"root":{"path":"r"},"process":` + process + `}`,
			after: `{"root":{"path":"r"},"process":` + lowered + `}`},
		{name: "process", before: process, after: lowered, isProcess: true},
	} {
		file := filepath.Join(t.TempDir(), test.name)
		if err := os.WriteFile(file, []byte(test.before), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := rewrite(file, test.isProcess,
			map[string]bool{"CAP_SYS_RESOURCE": true}); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(after, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(test.after), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestLackingCapabilities(t *testing.T) {
	t.Parallel()
	status := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(status,
		[]byte("Name:\tx\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	got, err := lackingCapabilities(status)
	if diff := cmp.Diff(map[string]bool{"CAP_SYS_RESOURCE": true}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
