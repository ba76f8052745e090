package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
	"github.com/sluice-net/sluice/test/needroot"
)

// speak sends bytes as they are and returns what is answered until the connection ends.
func (a *testAgent) speak(t *testing.T, message string, closeAfter bool) (status int, body string) {
	t.Helper()
	conn, err := net.Dial("unix", a.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(cnitest.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, message); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
	if socket, ok := conn.(*net.UnixConn); ok && closeAfter {
		if err := socket.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

func post(path, body string) string {
	return fmt.Sprintf(
		"POST %s HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		path, len(body), body)
}

// with is a good ADD request with one field changed, in JSON.
func with(t *testing.T, field, value string) string {
	t.Helper()
	data, err := json.Marshal(cnitest.GoodRequest())
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	fields[field] = json.RawMessage(value)
	var all []string
	for name, value := range fields {
		all = append(all, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(all, ",") + "}"
}

func TestHostileMessages(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	good := with(t, "ifName", `"eth0"`)
	for name, c := range map[string]struct {
		message string
		status  int
		code    uint
		says    string
	}{
		"empty body":     {post(cni.PathAdd, ""), 400, 6, "decoding the request"},
		"truncated JSON": {post(cni.PathAdd, good[:40]), 400, 6, "unexpected EOF"},
		"truncated body": {strings.TrimSuffix(post(cni.PathAdd, good), good[50:]), 400, 6,
			"reading the request"},
		"two requests": {post(cni.PathAdd, good+good), 400, 6, "more than one value"},
		"huge body":    {post(cni.PathAdd, strings.Repeat(" ", 70_000)), 413, 6, "too large"},
		"claimed huge": {
			"POST /v1/add HTTP/1.1\r\nHost: agent\r\nContent-Length: 99999999999\r\n\r\n" +
				strings.Repeat(" ", 70_000), 413, 6, "too large"},
		"endless chunks": {
			"POST /v1/add HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\n\r\n" +
				strings.Repeat("fff\r\n"+strings.Repeat(" ", 0xfff)+"\r\n", 20), 413, 6,
			"too large"},
		"deep": {post(cni.PathAdd, strings.Repeat("[", 60_000)), 400, 6,
			"decoding the request"},
		"null":          {post(cni.PathAdd, "null"), 400, 3, "missing containerID"},
		"wrong version": {post("/v2/add", good), 404, 11, "version 1 of the protocol only"},
		"no version":    {post("/add", good), 404, 11, "version 1 of the protocol only"},
		"wrong method": {"GET /v1/add HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n",
			404, 11, "GET /v1/add"},
		"path tricks": {post("/v1/x/../../etc", good), 307, 0, ""},
		"unknown field": {post(cni.PathAdd, with(t, "portMappings", `[]`)), 400, 6,
			"unknown field"},
		"container climbs": {post(cni.PathAdd, with(t, "containerID", `"../../../tmp/x"`)), 400, 4,
			`"../../../tmp/x"`},
		"DEL climbs": {post(cni.PathDel, `{"containerID":"../x","ifName":"eth0"}`), 400, 4,
			"invalid characters in containerID"},
		"interface climbs": {post(cni.PathAdd, with(t, "ifName", `"../x"`)), 400, 4,
			"interface name"},
		"container with zero": {
			post(cni.PathAdd, with(t, "containerID", `"a\u0000b"`)), 400, 4, `"a\x00b"`,
		},
		"long container": {post(cni.PathAdd,
			with(t, "containerID", `"`+strings.Repeat("a", 30_000)+`"`)), 400, 4, "(30000 bytes)"},
		"long pod": {post(cni.PathAdd, with(t, "podName", `"`+strings.Repeat("a", 254)+`"`)),
			400, 4, "invalid pod name"},
		"pod climbs": {post(cni.PathAdd, with(t, "podName", `"../x"`)), 400, 4, "invalid pod name"},
		"no UID":     {post(cni.PathAdd, with(t, "podUID", `""`)), 400, 4, "invalid pod UID"},
		"number for text": {post(cni.PathAdd, with(t, "podUID", `7`)), 400, 6,
			"cannot unmarshal number"},
		"not UTF-8": {post(cni.PathAdd, with(t, "podName", "\"a\xffb\"")), 400, 6, "not UTF-8"},
		"half surrogate": {post(cni.PathAdd, with(t, "podName", `"a\ud800b"`)), 400, 4,
			"invalid pod name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := a.speak(t, c.message, true)
			var got types.Error
			if c.code != 0 {
				if err := json.Unmarshal([]byte(body), &got); err != nil {
					t.Fatalf("HTTP %d, %q: %v", status, body, err)
				}
			}
			if status != c.status || got.Code != c.code || !strings.Contains(got.Error(), c.says) {
				t.Errorf("got HTTP %d, %s; want %d, code %d: %s", status, body, c.status,
					c.code, c.says)
			}
		})
	}
	t.Run("not HTTP", func(t *testing.T) {
		t.Parallel()
		for _, message := range []string{"", "\x00\x01\x02\xff", "{}", "POST",
			strings.Repeat("x", 100_000), "POST /v1/add HTTP/1.1\r\nX: " +
				strings.Repeat("x", 100_000)} {
			if status, body := a.speak(t, message, true); status == http.StatusOK {
				t.Errorf("%.20q: got %d, %s", message, status, body)
			}
		}
	})
	t.Cleanup(func() { // when all of these are done
		a.Expect()
		if calls := a.Enforcer.CallText(); calls != "" {
			t.Errorf("the enforcer was asked: %s", calls)
		}
		a.MustAdd(cnitest.GoodRequest())
		a.Expect("0123abcd/eth0")
	})
}

// TestSilentPeers: who connects and says nothing, or half of something, keeps nobody waiting.
func TestSilentPeers(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	for _, message := range []string{"", "POST /v1/ad",
		strings.TrimSuffix(post(cni.PathAdd, "{}"), "}")} {
		conn, err := net.Dial("unix", a.Socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, message); err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprintf("after %d bytes", len(message)), func(t *testing.T) {
			t.Parallel()
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Now().Add(cnitest.Patience)); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil {
				t.Errorf("the connection is still open: %v", err)
			}
			if bytes.Contains(answer, []byte("200 OK")) {
				t.Errorf("got %s", answer)
			}
		})
	}
	a.MustAdd(cnitest.GoodRequest())
	a.Expect("0123abcd/eth0")
}

// asUser runs f on a thread of its own that isn't root's any more.
func asUser(t *testing.T, uid uintptr, f func()) {
	t.Helper()
	needroot.Skip(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			panic(fmt.Sprintf("becoming user %d: %v", uid, errno))
		}
		f()
	}()
	<-done
}

func TestOtherUsers(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	for _, path := range []string{directory, filepath.Dir(directory)} {
		if err := os.Chmod(path, 0o755); err != nil { // for another user to enter
			t.Fatal(err)
		}
	}
	a := newAgent(t, func(o *Options) { o.Socket = filepath.Join(directory, cni.SocketName) })
	info, err := os.Stat(a.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v and %v, want 0600", info.Mode(), err)
	}
	asUser(t, 65534, func() {
		if conn, err := net.Dial("unix", a.Socket); !errors.Is(err, unix.EACCES) {
			t.Errorf("nobody connected: %v, %v", conn, err)
		}
	})
	// Had somebody opened the file to all, the kernel would still say who it is.
	if err := os.Chmod(a.Socket, 0o666); err != nil {
		t.Fatal(err)
	}
	asUser(t, 65534, func() {
		status, body := a.speak(t, post(cni.PathAdd, with(t, "ifName", `"eth0"`)), true)
		if status != http.StatusForbidden ||
			!strings.Contains(body, "only root may ask the agent") ||
			!strings.Contains(body, "user 65534") {
			t.Errorf("got %d, %s", status, body)
		}
	})
	a.Expect()
	a.MustAdd(cnitest.GoodRequest())
}

func TestHandle(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.server.Handle("POST "+cni.PathWhy,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			fmt.Fprintf(w, `{"length":%d}`, len(body))
		}))
	var answer struct{ Length int }
	if err := a.Call(cni.PathWhy, "question", &answer); err != nil ||
		answer.Length != len(`"question"`) {
		t.Errorf("got %v and %v", answer, err)
	}
	if err := a.Call(cni.PathWhy, strings.Repeat("x", cni.MaxRequestBytes),
		&answer); !errors.Is(err, cni.ErrNoAgent) {
		t.Errorf("a body that is too large: got %v", err)
	}
	if err := a.Call("/v1/who", "", &answer); !errors.Is(err, cni.ErrNoAgent) ||
		!strings.Contains(err.Error(), "version 1 of the protocol only") {
		t.Errorf("an unknown request: got %v", err)
	}
}

func TestSocketFile(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	options := Options{Socket: a.Socket, StateDir: t.TempDir(), Enforcer: &cnitest.Enforcer{}}
	second, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(context.Background()); err == nil ||
		!strings.Contains(err.Error(), "another server answers") {
		t.Errorf("two servers on one socket: %v", err)
	}
	a.MustAdd(cnitest.GoodRequest()) // the first isn't disturbed

	a.Stop()
	cnitest.LeaveStaleSocket(t, a.Socket)
	a.Start()
	a.MustDel(cnitest.GoodRequest())

	a.Stop()
	cnitest.WriteFile("precious")(t, a.Socket)
	if err := second.Run(context.Background()); err == nil ||
		!strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the place of the socket: %v", err)
	}
	if content, err := os.ReadFile(a.Socket); string(content) != "precious" {
		t.Errorf("the file is gone: %v", err)
	}
}
