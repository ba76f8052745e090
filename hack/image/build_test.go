package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// tree makes a folder with what an image should keep, and bears the given time.
func tree(t *testing.T, modified time.Time) string {
	t.Helper()
	dir := t.TempDir()
	steps := []error{
		os.MkdirAll(filepath.Join(dir, "usr/sbin"), 0o755),
		os.Mkdir(filepath.Join(dir, "scratch"), 0o755),
		os.Chmod(filepath.Join(dir, "scratch"), 0o777|os.ModeSticky),
		os.WriteFile(filepath.Join(dir, "usr/sbin/tool"), []byte("tool"), 0o600),
		os.Chmod(filepath.Join(dir, "usr/sbin/tool"), 0o755|os.ModeSetuid),
		os.Symlink("usr/sbin", filepath.Join(dir, "sbin")),
		os.Symlink("/missing", filepath.Join(dir, "dangling")),
	}
	for _, name := range []string{"usr/sbin/tool", "usr/sbin", "usr", "scratch", ""} {
		steps = append(steps, os.Chtimes(filepath.Join(dir, name), modified, modified))
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	return dir
}

func build(t *testing.T, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := runBuild(append([]string{"-output", file, "-arch", "arm64"}, args...)); err != nil {
		t.Fatal(err)
	}
	return file
}

// content lists the files of an image as lines of "type mode owner time path → target: text".
func content(t *testing.T, image v1.Image) (lines []string) {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("got layers %v, %v; want one", layers, err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return lines
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname+h.Gname != "" || h.ModTime.Unix() != 1000 {
			t.Errorf("%s belongs to %d:%d (%s:%s), and is of %v", h.Name, h.Uid, h.Gid, h.Uname,
				h.Gname, h.ModTime)
		}
		lines = append(lines,
			strings.TrimSpace(h.FileInfo().Mode().String()+" "+h.Name+" "+h.Linkname+" "+
				string(text)))
	}
}

func TestImageHoldsTheFilesAndNothingElse(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1000")
	dir := tree(t, time.Now())
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "usr/sbin/tool"), link); err != nil {
		t.Fatal(err)
	}
	file := build(t, "-tag", "registry.example/b:v1", "-tag", "a/b:v1", "-entrypoint",
		"/opt/bin/tool", "-entrypoint", "serve",
		"-env", "K=V", "-label", "l=a=b", dir+"=/", link+"=/opt/bin/tool")
	image, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(image); err != nil {
		t.Error(err)
	}
	want := []string{
		"Lrwxrwxrwx dangling /missing",
		"drwxr-xr-x opt/", "drwxr-xr-x opt/bin/", "urwxr-xr-x opt/bin/tool  tool",
		"Lrwxrwxrwx sbin usr/sbin",
		"dtrwxrwxrwx scratch/",
		"drwxr-xr-x usr/", "drwxr-xr-x usr/sbin/", "urwxr-xr-x usr/sbin/tool  tool",
	}
	if got := content(t, image); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if config.OS != "linux" || config.Architecture != "arm64" ||
		!slices.Equal(c.Entrypoint, []string{"/opt/bin/tool", "serve"}) ||
		!slices.Equal(c.Env, []string{"K=V"}) || c.Labels["l"] != "a=b" ||
		config.Created.Unix() != 1000 {
		t.Errorf("got the configuration %+v", config)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil || len(manifest) != 1 ||
		!slices.Equal(manifest[0].RepoTags, []string{"a/b:v1", "registry.example/b:v1"}) {
		t.Errorf("got the manifest %+v, %v", manifest, err)
	}
}

// The same content gives the same bytes, with any times and places of the files, and any order of
// the arguments.
func TestImageIsReproducible(t *testing.T) {
	t.Parallel()
	var archives [][]byte
	for i, order := range [][]int{{0, 1}, {1, 0}} {
		args := [][]string{{"-tag", "a/b:v1", "-label", "k=v"}, {"-tag", "a/b:v2", "-label", "a=b"}}
		sources := []string{tree(t, time.Unix(int64(i)*1e6, 0)) + "=/a",
			tree(t, time.Now()) + "=/b"}
		file := build(t,
			append(slices.Concat(args[order[0]], args[order[1]]), sources[0], sources[1])...)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, data)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two builds of the same files differ")
	}
}

func TestImageRefuses(t *testing.T) {
	t.Parallel()
	dir := tree(t, time.Now())
	tool := filepath.Join(dir, "usr/sbin/tool")
	for name, args := range map[string][]string{
		"no tag in the name":      {"-tag", "a/b", tool + "=/tool"},
		"a name in capitals":      {"-tag", "A/b:v1", tool + "=/tool"},
		"a relative place":        {"-tag", "a/b:v1", tool + "=tool"},
		"no place":                {"-tag", "a/b:v1", tool},
		"a missing file":          {"-tag", "a/b:v1", tool + "s=/tool"},
		"two files in one place":  {"-tag", "a/b:v1", tool + "=/tool", tool + "=/tool"},
		"a file inside a file":    {"-tag", "a/b:v1", tool + "=/tool", tool + "=/tool/x"},
		"a file inside a link":    {"-tag", "a/b:v1", dir + "=/", tool + "=/sbin/x"},
		"a file as the root":      {"-tag", "a/b:v1", tool + "=/"},
		"a device":                {"-tag", "a/b:v1", "/dev/null=/null"},
		"a label without a value": {"-tag", "a/b:v1", "-label", "k", tool + "=/tool"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := t.TempDir()
			if err := runBuild(append([]string{"-output", filepath.Join(out, "x.tar"), "-arch",
				"amd64"}, args...)); err == nil {
				t.Error("got no error")
			}
			if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// A layout has one entry, an index of every platform, whose images hold what the archives do; and
// it takes the place of an older one.
func TestIndex(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1000")
	dir := filepath.Join(t.TempDir(), "oci")
	for range 2 {
		file := build(t, "-tag", "a/b:v1", "-entrypoint", "/usr/sbin/tool",
			tree(t, time.Now())+"=/")
		if err := runIndex([]string{"-layout", dir, "-tag", "a/b:v1", file}); err != nil {
			t.Fatal(err)
		}
		outer, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(outer); err != nil {
			t.Error(err)
		}
		top, err := outer.IndexManifest()
		if err != nil || len(top.Manifests) != 1 ||
			top.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "a/b:v1" {
			t.Fatalf("got %+v, %v", top, err)
		}
		inner, err := outer.ImageIndex(top.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		platforms, err := inner.IndexManifest()
		if err != nil || len(platforms.Manifests) != 1 ||
			platforms.Manifests[0].Platform.String() != "linux/arm64" {
			t.Fatalf("got %+v, %v", platforms, err)
		}
		image, err := inner.Image(platforms.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		archived, err := tarball.ImageFromPath(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := content(t, image), content(t, archived); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if !sameConfig(t, image, archived) {
			t.Error("the configuration isn't the archive's")
		}
	}
}

func sameConfig(t *testing.T, a, b v1.Image) bool {
	t.Helper()
	x, err := a.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return x == y
}
