package server

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/needroot"
)

// everyPath is what can be asked at the socket: the protocol's requests, what the agent adds, and
// what nobody knows.
func everyPath() map[string]any {
	good := cnitest.GoodRequest()
	return map[string]any{
		cni.PathAdd: good,
		cni.PathDel: cni.DelRequest{ContainerID: good.ContainerID, IfName: good.IfName},
		cni.PathCheck: cni.CheckRequest{ContainerID: good.ContainerID, IfName: good.IfName,
			Addresses: nil},
		cni.PathStatus: cni.StatusRequest{},
		cni.PathWhy:    nil,
		"/v2/add":      good,
		"/":            nil,
	}
}

// askedBy is the environment by which TestAskingChild knows its socket.
const askedBy = "SLUICE_TEST_SOCKET"

// TestAskingChild is no test but the other process of TestOtherUsersEverywhere: it prints what each
// path says to it.
func TestAskingChild(t *testing.T) { //nolint:paralleltest // it is a process of its own
	socket := os.Getenv(askedBy)
	if socket == "" {
		return
	}
	answers := map[string]string{}
	for path, request := range everyPath() {
		answers[path] = "answered"
		if err := cni.NewClient(socket).
			Call(context.Background(), path, request, &struct{}{}); err != nil {
			answers[path] = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		t.Fatal(err)
	}
}

// askAs runs TestAskingChild as a user.
func askAs(t *testing.T, uid uint32, socket string) map[string]string {
	t.Helper()
	child := exec.Command("/proc/self/exe", "-test.run=^TestAskingChild$", "-test.count=1")
	child.Env = []string{askedBy + "=" + socket}
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid},
		Pdeathsig: unix.SIGKILL}
	out, err := child.Output()
	if err != nil {
		t.Fatalf("as user %d: %v\n%s", uid, err, out)
	}
	var answers map[string]string
	line, _, _ := strings.Cut(string(out), "\n")
	if err := json.Unmarshal([]byte(line), &answers); err != nil ||
		len(answers) != len(everyPath()) {
		t.Fatalf("as user %d: %v\n%s", uid, err, out)
	}
	return answers
}

// TestOtherUsersEverywhere: a process of another user gets nothing from any path, neither by the
// file's mode nor, where somebody has loosened that, by who it is. Root's process does.
func TestOtherUsersEverywhere(t *testing.T) {
	t.Parallel()
	needroot.Skip(t)
	directory := t.TempDir()
	for _, path := range []string{directory, filepath.Dir(directory)} {
		if err := os.Chmod(path, 0o755); err != nil { // for another user to enter
			t.Fatal(err)
		}
	}
	a := newAgent(t, func(o *Options) { o.Socket = filepath.Join(directory, cni.SocketName) })
	why := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }
	a.server.Handle(cni.PathWhy, http.HandlerFunc(why))
	good := cnitest.GoodRequest()
	a.MustAdd(good)
	held := cni.AttachmentID(good.ContainerID, good.IfName)

	for _, uid := range []uint32{65534, 1} {
		for path, answer := range askAs(t, uid, a.Socket) {
			if !strings.Contains(answer, "permission denied") {
				t.Errorf("user %d, %s of a socket of mode 0600: %s", uid, path, answer)
			}
		}
	}
	if err := os.Chmod(a.Socket, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []uint32{65534, 1} {
		for path, answer := range askAs(t, uid, a.Socket) {
			if !strings.Contains(answer, "only root may ask the agent") {
				t.Errorf("user %d, %s of a socket of mode 0777: %s", uid, path, answer)
			}
		}
	}
	a.Expect(held)
	// The control: the same process as root.
	for path, answer := range askAs(t, 0, a.Socket) {
		if isKnown := strings.HasPrefix(path, "/v1/"); isKnown != (answer == "answered") {
			t.Errorf("root, %s: %s", path, answer)
		}
	}
}
