package cni

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func newAttachment(container, pod string, addresses ...string) Attachment {
	return Attachment{
		ContainerID: container, IfName: "eth0",
		PodNamespace: "dev", PodName: pod, PodUID: "1a2b-" + pod,
		Interface: InterfaceName("dev", pod, "eth0"),
		Addresses: addrs(addresses...),
		MTU:       1450,
	}
}

func newRecords(t *testing.T, all ...Attachment) Records {
	t.Helper()
	r := OpenRecords(filepath.Join(t.TempDir(), "state"))
	if err := r.MakeDirectories(); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if err := r.Write(a); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func write(content string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func goodRequest() AddRequest {
	return AddRequest{ContainerID: "0123abcd", IfName: "eth0", PodNamespace: "dev",
		PodName: "web-0.db", PodUID: "4D-aa"}
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func sameAddr(a, b netip.Addr) bool { return a == b }
