package cnitest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
)

// Port is where Serve serves.
const Port = 8080

// Serve echoes what comes on a TCP port of every address, until the test ends.
func Serve(t testing.TB, netns ns.NetNS) {
	t.Helper()
	err := netns.Do(func(ns.NetNS) error {
		listener, err := net.Listen("tcp", fmt.Sprint(":", Port))
		if err != nil {
			return err
		}
		ended := make(chan struct{})
		t.Cleanup(func() { _ = listener.Close(); <-ended })
		go func() {
			defer close(ended)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.CopyN(conn, conn, int64(len("hello"))) // who asked notices if it fails
				_ = conn.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatalf("serving: %v", err)
	}
}

// FirstTry is less than a second, after which the kernel sends a lost SYN again.
const FirstTry = 900 * time.Millisecond

// Connect opens a connection from a namespace and expects its echo.
func Connect(netns ns.NetNS, to netip.AddrPort) error {
	return netns.Do(func(ns.NetNS) error {
		conn, err := net.DialTimeout("tcp", to.String(), FirstTry)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(FirstTry)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return err
		}
		answer, err := io.ReadAll(conn)
		if err == nil && string(answer) != "hello" {
			err = fmt.Errorf("the echo of hello is %q", answer)
		}
		return err
	})
}

// Lines is what a shell command prints in a namespace, without spaces at the ends. Its complaints
// count only if it fails: ip complains of namespaces of other tests that end while it looks.
func Lines(t testing.TB, netns ns.NetNS, command string) []string {
	t.Helper()
	var output []byte
	err := netns.Do(func(ns.NetNS) (err error) {
		output, err = exec.Command("sh", "-c", command).Output()
		return err
	})
	if err != nil {
		var stderr []byte
		if failed := new(exec.ExitError); errors.As(err, &failed) {
			stderr = failed.Stderr
		}
		t.Fatalf("%s: %v\n%s%s", command, err, output, stderr)
	}
	var all []string
	for line := range strings.Lines(string(output)) {
		all = append(all, strings.TrimSpace(line))
	}
	return all
}

// LinkNames are those of the links in a namespace but lo.
func LinkNames(t testing.TB, netns ns.NetNS) []string {
	t.Helper()
	var names []string
	err := netns.Do(func(ns.NetNS) error {
		interfaces, err := net.Interfaces()
		for _, i := range interfaces {
			if i.Name != "lo" {
				names = append(names, i.Name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
