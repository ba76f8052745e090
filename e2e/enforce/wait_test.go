package enforce

import (
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-net/sluice/test/stretch"
)

// eventually waits until the condition holds.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(stretch.By(50 * time.Millisecond))
	defer tick.Stop()
	for deadline := time.Now().Add(settleTime); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %v for %s", settleTime, what)
		}
	}
}

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func split(name string) (namespace, short string) {
	namespace, short, _ = strings.Cut(name, "/")
	return namespace, short
}
