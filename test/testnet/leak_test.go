package testnet

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Not parallel: it looks at the whole process, and tests that are parallel wait until it is done.
func TestNothingIsLeftBehind(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector closes forgotten files
	// the runtime and the net package open things once
	t.Run("warm up", useEverything)
	files := openFiles(t)
	t.Run("again", useEverything)
	if after := openFiles(t); after != files {
		t.Errorf("%d files are open, %d were before", after, files)
	}
	mine, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", unix.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		// A thread that ended meanwhile is in no namespace.
		if netns, err := os.Readlink(thread); err == nil && netns != mine {
			t.Errorf("thread %s is in %s, not in %s", thread, netns, mine)
		}
	}
}

func useEverything(t *testing.T) {
	w := newWorld(t)
	c := w.node.BridgedPod("c", addrs("10.88.0.2")...)
	c.ServeTCP(openPort)
	w.a.MustReach(t, TCP, at(c.Addr4(), openPort))
	w.a.MustReach(t, SCTP, at(w.b.Addr6(), openPort))
	w.a.Open(t, TCP, at(w.b.Addr6(), openPort))
	sink := w.b.Sink(UDP, 9000)
	w.a.Flood(at(w.b.Addr4(), 9000), OnCPU(0)) // stopped by the cleanup
	eventually(t, "packets arriving", func() bool { return sink.Received() > 100 })
	w.away.Remove()
	for _, h := range []*Host{w.a, w.self} {
		checkNotMounted(t, h)
	}
}

// checkNotMounted looks for a mount of the host's namespace, which would keep it. Other programs
// may mount theirs meanwhile.
func checkNotMounted(t *testing.T, h *Host) {
	t.Helper()
	id, err := os.Readlink(h.Path())
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(id, "net:[") || strings.Contains(string(mounts), id) {
		t.Errorf("the namespace of %s, %s, is mounted:\n%s", h.name, id, mounts)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func BenchmarkNodeWithFourPods(b *testing.B) {
	for b.Loop() {
		n := NewNode(b)
		for i := range byte(4) {
			n.Pod(fmt.Sprint("pod-", i), lastByte(addrsA[0], i+1), lastByte(addrsA[1], i+1))
		}
	}
}

func BenchmarkConnect(b *testing.B) {
	w := newWorld(b)
	for _, proto := range []Protocol{TCP, UDP, SCTP, ICMP} {
		b.Run(string(proto), func(b *testing.B) {
			for b.Loop() {
				if r := w.a.Connect(proto, at(w.b.Addr4(), openPort)); !r.OK {
					b.Fatal(r)
				}
			}
		})
	}
}

func BenchmarkFlood(b *testing.B) {
	w := newWorld(b)
	sink := w.b.Sink(UDP, 9000)
	flood := w.a.Flood(at(w.b.Addr4(), 9000))
	start := flood.Sent()
	for b.Loop() {
		for sent := flood.Sent(); flood.Sent() < sent+1000; {
			sink.Received()
		}
	}
	b.ReportMetric(float64(flood.Sent()-start)/b.Elapsed().Seconds(), "packets/s")
}
