package killpoint_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/e2e/internal/killpoint"
)

// childVariable makes this program the one that is killed, at work in the folder that it names.
const childVariable = "KILLPOINT_CHILD"

func TestMain(m *testing.M) {
	killpoint.Launch()
	if dir := os.Getenv(childVariable); dir != "" {
		if err := work(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// work does one thing of each sort, in a network namespace of its own, and some that are no kill
// points.
func work(dir string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	file := filepath.Join(dir, "file")
	lo, err := netlink.LinkByName("lo")
	return errors.Join(
		err,
		os.Mkdir(filepath.Join(dir, "folder"), 0o700),
		os.WriteFile(file, []byte("content"), 0o600), // create and write
		os.Rename(file, file+"2"),
		netlink.LinkSetUp(lo),
		netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index,
			Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 0).To4(), Mask: net.CIDRMask(24, 32)}}),
		// create, as O_CREAT is given, and write
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600),
		os.Remove(file+"2"),
	)
}

var wanted = []string{
	"files: mkdir folder", "files: create file", "files: write file", "files: rename file to file2",
	"links: new link", "links: new route",
	"files: create /proc/sys/net/ipv4/ip_forward", "files: write /proc/sys/net/ipv4/ip_forward",
	"files: remove file2",
}

// A program is killed at the call that was chosen, which isn't made, and all before it are.
func TestKilledAtEach(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	for at := 0; at <= len(wanted); at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			calls, died := run(t, dir, killpoint.Aim{At: at})
			want := wanted
			if at > 0 {
				want = wanted[:at]
			}
			if strings.Join(calls, "\n") != strings.Join(want, "\n") {
				t.Errorf("kill points:\n%s\nwant:\n%s", strings.Join(calls, "\n"),
					strings.Join(want, "\n"))
			}
			if died != (at > 0) {
				t.Errorf("the program was killed: %v", died)
			}
			for file, there := range map[string]bool{"folder": at == 0 || at > 1,
				"file": at == 3 || at == 4, "file2": at > 4} {
				if _, err := os.Stat(filepath.Join(dir, file)); (err == nil) != there {
					t.Errorf("%s is there: %v", file, !there)
				}
			}
		})
	}
}

// What isn't picked isn't counted.
func TestKilledAtKind(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	aim := killpoint.Aim{At: 2, Of: func(c killpoint.Call) bool {
		return c.Kind == killpoint.Links
	}}
	calls, died := run(t, t.TempDir(), aim)
	if strings.Join(calls, ", ") != "links: new link, links: new route" || !died {
		t.Errorf("killed: %v, at the last of %q", died, calls)
	}
}

func run(t *testing.T, dir string, aim killpoint.Aim) (calls []string, died bool) {
	t.Helper()
	launcher, err := killpoint.Launcher()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(launcher[0], append(launcher[1:], os.Args[0])...)
	cmd.Env = append(os.Environ(), childVariable+"="+dir)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	trap, err := killpoint.Attach(ctx, cmd.Process.Pid, &aim)
	if err != nil {
		t.Fatal(errors.Join(err, cmd.Process.Kill(), cmd.Wait()))
	}
	err = cmd.Wait()
	trap.Close()
	died = trap.Death() != nil
	if !died && err != nil {
		t.Error(err)
	}
	for _, call := range trap.Disarm() {
		calls = append(calls, strings.ReplaceAll(call.String(), dir+"/", ""))
	}
	return calls, died
}
