package cni

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
)

func TestRequestFields(t *testing.T) {
	t.Parallel()
	if err := goodRequest().Validate(); err != nil {
		t.Fatal(err)
	}
	long := func(n int) string { return strings.Repeat("a", n) }
	for name, c := range map[string]struct {
		set  func(*AddRequest)
		good bool
	}{
		"longest": {func(r *AddRequest) {
			r.ContainerID, r.IfName, r.PodNamespace, r.PodName, r.PodUID = long(200), long(15),
				long(63), long(253), long(128)
		}, true},
		"odd interface": {func(r *AddRequest) { r.IfName = "a@b.c-$" }, true},
		"no container":  {func(r *AddRequest) { r.ContainerID = "" }, false},
		"container: path": {
			func(r *AddRequest) { r.ContainerID = "../../etc/passwd" }, false},
		"container: slash":        {func(r *AddRequest) { r.ContainerID = "a/b" }, false},
		"container: dots":         {func(r *AddRequest) { r.ContainerID = ".." }, false},
		"container: at":           {func(r *AddRequest) { r.ContainerID = "a@b" }, false},
		"container: zero":         {func(r *AddRequest) { r.ContainerID = "a\x00" }, false},
		"container: line":         {func(r *AddRequest) { r.ContainerID = "a\n" }, false},
		"container: long":         {func(r *AddRequest) { r.ContainerID = long(201) }, false},
		"no interface":            {func(r *AddRequest) { r.IfName = "" }, false},
		"interface: path":         {func(r *AddRequest) { r.IfName = "../x" }, false},
		"interface: dots":         {func(r *AddRequest) { r.IfName = ".." }, false},
		"interface: pattern":      {func(r *AddRequest) { r.IfName = "eth%d" }, false},
		"interface: zero":         {func(r *AddRequest) { r.IfName = "e\x00" }, false},
		"interface: escape":       {func(r *AddRequest) { r.IfName = "e\x1b[2J" }, false},
		"interface: not ASCII":    {func(r *AddRequest) { r.IfName = "é" }, false},
		"interface: invalid text": {func(r *AddRequest) { r.IfName = "e\xff" }, false},
		"interface: long":         {func(r *AddRequest) { r.IfName = long(16) }, false},
		"no namespace":            {func(r *AddRequest) { r.PodNamespace = "" }, false},
		"namespace: dot":          {func(r *AddRequest) { r.PodNamespace = "a.b" }, false},
		"namespace: upper case":   {func(r *AddRequest) { r.PodNamespace = "Dev" }, false},
		"namespace: ends badly":   {func(r *AddRequest) { r.PodNamespace = "dev-" }, false},
		"namespace: long":         {func(r *AddRequest) { r.PodNamespace = long(64) }, false},
		"no pod":                  {func(r *AddRequest) { r.PodName = "" }, false},
		"pod: path":               {func(r *AddRequest) { r.PodName = "a/../b" }, false},
		"pod: begins badly":       {func(r *AddRequest) { r.PodName = ".a" }, false},
		"pod: invalid text":       {func(r *AddRequest) { r.PodName = "a\xffb" }, false},
		"pod: long":               {func(r *AddRequest) { r.PodName = long(254) }, false},
		"no UID":                  {func(r *AddRequest) { r.PodUID = "" }, false},
		"UID: space":              {func(r *AddRequest) { r.PodUID = "a b" }, false},
		"UID: long":               {func(r *AddRequest) { r.PodUID = long(129) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := goodRequest()
			c.set(&r)
			err := r.Validate()
			if c.good {
				if err != nil {
					t.Error(err)
				}
				return
			}
			known := new(types.Error)
			if !errors.As(err, &known) || known.Code != types.ErrInvalidEnvironmentVariables &&
				known.Code != types.ErrUnknownContainer {
				t.Fatalf("got %v, want an error of the specification", err)
			}
			if strings.ContainsAny(known.Error(), "\x00\x1b\n") ||
				!utf8.ValidString(known.Error()) || len(known.Error()) > 300 {
				t.Errorf("the error isn't fit to print: %q", known.Error())
			}
		})
	}
}

func TestDecodeRequest(t *testing.T) {
	t.Parallel()
	const good = `{"containerID":"c","ifName":"eth0"}`
	var r DelRequest
	if err := DecodeRequest([]byte(good+" \n"), &r); err != nil || r.ContainerID != "c" {
		t.Fatalf("got %v and %v", r, err)
	}
	for name, body := range map[string]string{
		"empty":         ``,
		"truncated":     good[:len(good)-1],
		"two values":    good + good,
		"garbage after": good + "}",
		"unknown field": `{"containerID":"c","ifName":"eth0","portMappings":[]}`,
		"wrong type":    `{"containerID":7}`,
		"array":         `[` + good + `]`,
		"deep":          strings.Repeat(`{"containerID":`, 30_000),
		"not UTF-8":     "{\"containerID\":\"\xff\"}",
		"UTF-16":        "\xff\xfe{\x00}\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := DecodeRequest([]byte(body), new(DelRequest)); err == nil {
				t.Error("no error")
			}
		})
	}
}

// FuzzDecodeRequest: what is let through makes a file name inside the directory.
func FuzzDecodeRequest(f *testing.F) {
	f.Add(`{"containerID":"c","ifName":"eth0","podNamespace":"n","podName":"p","podUID":"u"}`)
	f.Add(`{"containerID":"../c","ifName":"eth0","podNamespace":"n","podName":"p","podUID":"u"}`)
	f.Add("{\"ifName\":\"\\u0000\"}")
	f.Fuzz(func(t *testing.T, body string) {
		var r AddRequest
		if DecodeRequest([]byte(body), &r) != nil || r.Validate() != nil {
			return
		}
		path := Records{stateDir: "/state"}.Path(r.ContainerID, r.IfName)
		name, inside := strings.CutPrefix(path, "/state/attachments/")
		if !inside || strings.ContainsAny(name, "/\x00") || len(name) > 255 ||
			strings.HasPrefix(name, ".") {
			t.Errorf("%q makes the file %q", body, path)
		}
	})
}

// TestDerivedNames: a plugin and an agent of different versions must agree on them, so they never
// change.
func TestDerivedNames(t *testing.T) {
	t.Parallel()
	a := newAttachment("c1", "pod-a", "10.1.0.1")
	for _, c := range []struct{ got, want string }{
		{a.Interface, "slupbcb64b37750"},
		{a.HostMAC().String(), "a2:1f:d2:d3:5f:7c"},
		{a.PodMAC().String(), "ea:93:8c:71:71:ad"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	if len(a.Interface) != 15 || !IsInterfaceName(a.Interface) {
		t.Errorf("%s isn't a name that the kernel takes", a.Interface)
	}
	if label := PodLabel(strings.Repeat("n", 63), strings.Repeat("p", 253)); len(label) != 255 {
		t.Errorf("the label has %d bytes", len(label))
	}
}
