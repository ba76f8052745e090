package cnitest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/stretch"
)

// Patience is how long a test waits for what must happen.
var Patience = stretch.By(time.Minute)

// Noon is when the tests' clocks start, since the boot.
const Noon = 12 * time.Hour

// Prefixes reads prefixes, which must be some.
func Prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// Addrs reads addresses, which must be some.
func Addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// SameAddr compares addresses for cmp.
func SameAddr(a, b netip.Addr) bool { return a == b }

// AddressText is prefixes in a line.
func AddressText(prefixes []netip.Prefix) string { return strings.Trim(fmt.Sprint(prefixes), "[]") }

// RequestFor is an ADD of a pod of namespace dev.
func RequestFor(container, pod string) cni.AddRequest {
	return cni.AddRequest{ContainerID: container, IfName: "eth0", PodNamespace: "dev", PodName: pod,
		PodUID: "uid-" + pod}
}

// GoodRequest is an ADD with all that it needs.
func GoodRequest() cni.AddRequest {
	return cni.AddRequest{ContainerID: "0123abcd", IfName: "eth0", PodNamespace: "dev",
		PodName: "web-0.db", PodUID: "4D-aa"}
}

// NewAttachment is one of a pod of namespace dev.
func NewAttachment(container, pod string, addresses ...string) cni.Attachment {
	return cni.Attachment{
		ContainerID: container, IfName: "eth0",
		PodNamespace: "dev", PodName: pod, PodUID: "1a2b-" + pod,
		Interface: cni.InterfaceName("dev", pod, "eth0"),
		Addresses: Addrs(addresses...),
		MTU:       1450,
	}
}

// InUse are the addresses of a ledger that don't cool down.
func InUse(l cni.Ledger) []netip.Addr {
	var all []netip.Addr
	for _, addr := range l.Taken {
		if _, isFreed := l.Freed[addr]; !isFreed {
			all = append(all, addr)
		}
	}
	return all
}

// MustFail checks the specification's code of an error and what it says.
func MustFail(t testing.TB, err error, code uint, parts ...string) {
	t.Helper()
	known := new(types.Error)
	if !errors.As(err, &known) || known.Code != code {
		t.Errorf("got %v (%+v), want code %d", err, known, code)
		return
	}
	for _, part := range parts {
		if !strings.Contains(known.Error(), part) {
			t.Errorf("got %q, want it to say %q", known, part)
		}
	}
}

// MustBeOfTheSpecification wants no error, or one of the specification, with its cause.
func MustBeOfTheSpecification(t *testing.T, err error) {
	t.Helper()
	if known := new(types.Error); err != nil &&
		(!errors.As(err, &known) || known.Code == 0 || known.Msg == "") {
		t.Errorf("not an error of the specification: %v", err)
	}
}

// Eventually asks until the answer is yes: at first often, and then less and less.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	const first, last = 50 * time.Microsecond, 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	timer := time.NewTimer(first)
	defer timer.Stop()
	for wait := first; !done(); wait = min(2*wait, last) {
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, ctx.Err())
		}
	}
}

// NewRecords is a state directory with the records of attachments.
func NewRecords(t *testing.T, all ...cni.Attachment) cni.Records {
	t.Helper()
	r := cni.OpenRecords(filepath.Join(t.TempDir(), "state"))
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

// WriteFile writes a file of the agent's.
func WriteFile(content string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
