package install

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

const (
	ourPlugin  = `{"type":"sluice","capabilities":{"bandwidth":true,"portMappings":true}}`
	meshPlugin = `{"type":"mesh-cni","log_level":"info","kubernetes":{"exclude":["kube-system"],"n":15001}}`
	tunePlugin = `{"sysctl":{"net.core.somaxconn":"500"},"type":"tuning"}`
)

// conflistOf is a configuration as another program writes it: in a line, keys in an order of its
// own.
func conflistOf(plugins ...string) string {
	return `{"name":"sluice","plugins":[` + strings.Join(plugins, ",") +
		`],"cniVersions":["1.0.0","1.1.0"],"cniVersion":"1.0.0"}`
}

// TestAppendedPluginsStay: what others put behind our plugin stays, in their order, while the rest
// is repaired; a file with the right meaning isn't written.
func TestAppendedPluginsStay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		found    string
		options  ConflistOptions
		appended []string
		edited   string // a part of it; empty: the file is left alone
	}{
		"ours alone": {conflistOf(ourPlugin), ConflistOptions{}, nil, ""},
		"one behind it": {conflistOf(ourPlugin, meshPlugin), ConflistOptions{},
			[]string{"mesh-cni"}, ""},
		"two behind it": {conflistOf(ourPlugin, meshPlugin, tunePlugin),
			ConflistOptions{}, []string{"mesh-cni", "tuning"}, ""},
		"the other way round": {conflistOf(ourPlugin, tunePlugin, meshPlugin),
			ConflistOptions{}, []string{"tuning", "mesh-cni"}, ""},
		"other settings of ours": {conflistOf(`{"type":"sluice"}`, meshPlugin), ConflistOptions{},
			[]string{"mesh-cni"}, "its settings were others"},
		"after an upgrade": {conflistOf(ourPlugin, meshPlugin),
			ConflistOptions{Socket: "/new"}, []string{"mesh-cni"}, "its settings were others"},
		"another name": {
			strings.Replace(conflistOf(ourPlugin, meshPlugin), `"name":"sluice"`, `"name":"x"`, 1),
			ConflistOptions{}, []string{"mesh-cni"}, "its settings were others"},
		"one before it": {conflistOf(meshPlugin, ourPlugin, tunePlugin),
			ConflistOptions{}, []string{"tuning"}, `plugin "mesh-cni" stands before sluice`},
		"without ours": {conflistOf(meshPlugin), ConflistOptions{}, nil,
			"plugin sluice isn't in it"},
		"ours twice": {conflistOf(ourPlugin, meshPlugin, ourPlugin),
			ConflistOptions{}, []string{"mesh-cni"}, `plugins[2] of type "sluice"`},
		"one without a type": {conflistOf(ourPlugin, `{"type":5}`, `"x"`, `null`, meshPlugin),
			ConflistOptions{}, []string{"mesh-cni"}, `plugins[1] of type ""`},
		"too many": {
			conflistOf(append([]string{ourPlugin}, slices.Repeat([]string{tunePlugin}, 20)...)...),
			ConflistOptions{}, slices.Repeat([]string{"tuning"}, 16), "at most 16"},
		"exclusive": {conflistOf(ourPlugin, meshPlugin),
			ConflistOptions{Exclusive: true}, nil, `plugin "mesh-cni" stands behind sluice`},
		"exclusive, nobody else's": {conflistOf(ourPlugin), ConflistOptions{Exclusive: true},
			nil, ""},
		"no list": {`{"plugins":{}}`, ConflistOptions{}, nil,
			"it isn't a network configuration list"},
		"no JSON": {"\x00", ConflistOptions{}, nil, "it isn't a network configuration list"},
		"empty":   {"", ConflistOptions{}, nil, "it isn't a network configuration list"},
		"huge": {conflistOf(ourPlugin, meshPlugin) +
			strings.Repeat(" ", mostConflist), ConflistOptions{}, nil, "at most 65536 bytes"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, ConflistName)
		if err := writeConflist(path, c.found); err != nil {
			t.Fatal(err)
		}
		state, err := Conflist(dir, c.options)
		if err != nil || !slices.Equal(state.Appended, c.appended) ||
			state.Changed != (c.edited != "") || !strings.Contains(state.Edited, c.edited) ||
			c.edited == "" && state.Edited != "" {
			t.Errorf("%s: %+v, %v", name, state, err)
		}
		list, err := libcni.ConfListFromFile(path)
		if err != nil {
			t.Errorf("%s: a runtime can't read it: %v", name, err)
			continue
		}
		if list.Name != "sluice" || len(list.Plugins) != 1+len(c.appended) ||
			list.Plugins[0].Network.Type != "sluice" {
			t.Errorf("%s: a runtime reads %s", name, list.Bytes)
		}
		for i, p := range list.Plugins[1:] {
			want := map[string]string{"mesh-cni": meshPlugin, "tuning": tunePlugin}[c.appended[i]]
			if got, want := compact(t, p.Bytes), compact(t, []byte(want)); got != want {
				t.Errorf("%s: plugin %d is %s, want %s", name, i+1, got, want)
			}
		}
		if again, err := Conflist(dir, c.options); err != nil || again.Changed {
			t.Errorf("%s: a second time: %+v, %v", name, again, err)
		}
	}
}

// compact is JSON as a runtime passes it on: keys in order.
func compact(t *testing.T, data []byte) string {
	t.Helper()
	v, err := parseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func writeConflist(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// TestRemoveConflistKeepsOthers: what others appended isn't lost with our configuration, and no
// runtime takes it for one.
func TestRemoveConflistKeepsOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := writeConflist(filepath.Join(dir, ConflistName),
		conflistOf(ourPlugin, meshPlugin, tunePlugin)); err != nil {
		t.Fatal(err)
	}
	kept, err := RemoveConflist(dir)
	if err != nil || kept != filepath.Join(dir, ConflistName+othersEnding) {
		t.Fatalf("kept %q, %v", kept, err)
	}
	data, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	got, want := compact(t, data),
		compact(t, fmt.Appendf(nil, `{"plugins":[%s,%s]}`, meshPlugin, tunePlugin))
	if got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	files, err := libcni.ConfFiles(dir, configurationEndings())
	if err != nil || len(files) > 0 {
		t.Errorf("a runtime reads %v (%v)", files, err)
	}
	if kept, err := RemoveConflist(dir); err != nil || kept != "" {
		t.Errorf("a second time: kept %q, %v", kept, err)
	}
}
