package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// source is a file or folder of this machine, and its place in the image.
type source struct {
	from string
	to   string // without a leading slash; "" is the image's root
}

// parseSource reads SRC=/dest. SRC may be a symbolic link: what it leads to is meant.
func parseSource(arg string) (source, error) {
	from, to, ok := strings.Cut(arg, "=")
	if !ok || from == "" || !path.IsAbs(to) {
		return source{}, fmt.Errorf("%q isn't of the form SRC=/dest", arg)
	}
	return source{from: from, to: strings.TrimPrefix(path.Clean(to), "/")}, nil
}

// entry is what one path of the image holds.
type entry struct {
	from string      // "": a folder that the sources need and don't have
	info fs.FileInfo // nil likewise
}

// newLayer makes the layer that holds the sources. It reads the files again whenever its content is
// asked for, so they must not change meanwhile.
func newLayer(sources []source, modified time.Time) (v1.Layer, error) {
	entries, err := collect(sources)
	if err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() { w.CloseWithError(writeEntries(w, entries, modified)) }()
		return r, nil
	}
	layer, err := tarball.LayerFromOpener(open,
		tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.DefaultCompression))
	if err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	return layer, nil
}

// collect lists what the image holds, by path. Two sources may add to the same folder, but not have
// the same file.
func collect(sources []source) (map[string]entry, error) {
	entries := map[string]entry{}
	for _, src := range sources {
		root, err := filepath.EvalSymlinks(src.from)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", src.from, err)
		}
		err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			below, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			return add(entries, path.Join(src.to, filepath.ToSlash(below)), entry{file, info})
		})
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", src.from, err)
		}
	}
	for _, to := range sortedKeys(entries) {
		for dir := path.Dir(to); dir != "."; dir = path.Dir(dir) {
			parent, ok := entries[dir]
			if !ok {
				entries[dir] = entry{}
			} else if parent.info != nil && !parent.info.IsDir() {
				return nil, fmt.Errorf("/%s can't be in /%s, which is no folder", to, dir)
			}
		}
	}
	return entries, nil
}

func add(entries map[string]entry, to string, e entry) error {
	if to == "" || to == "." {
		if !e.info.IsDir() {
			return fmt.Errorf("%s is a file, and can't be the image's root", e.from)
		}
		return nil // every image has a root
	}
	if kind := e.info.Mode().Type(); kind&^(fs.ModeDir|fs.ModeSymlink) != 0 {
		return fmt.Errorf("%s is neither a file, a folder nor a symbolic link", e.from)
	}
	if old, taken := entries[to]; taken && (!old.info.IsDir() || !e.info.IsDir()) {
		return fmt.Errorf("/%s is both %s and %s", to, old.from, e.from)
	}
	entries[to] = e
	return nil
}

// writeEntries writes the entries as a tar file, folders before what is in them.
func writeEntries(w io.Writer, entries map[string]entry, modified time.Time) error {
	archive := tar.NewWriter(w)
	for _, to := range sortedKeys(entries) {
		if err := writeOne(archive, to, entries[to], modified); err != nil {
			return fmt.Errorf("adding /%s: %w", to, err)
		}
	}
	return archive.Close()
}

func writeOne(archive *tar.Writer, to string, e entry, modified time.Time) error {
	header := &tar.Header{Name: to, ModTime: modified, Typeflag: tar.TypeDir, Mode: 0o755}
	if e.info != nil {
		// What else FileInfoHeader knows (owner, times, numbers of devices) depends on this
		// machine.
		found, err := tar.FileInfoHeader(e.info, "")
		if err != nil {
			return err
		}
		header.Typeflag, header.Mode, header.Size = found.Typeflag, found.Mode, found.Size
	}
	switch header.Typeflag {
	case tar.TypeDir:
		header.Name += "/"
	case tar.TypeSymlink:
		target, err := os.Readlink(e.from)
		if err != nil {
			return err
		}
		header.Linkname, header.Mode = target, 0o777
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(e.from)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := io.Copy(archive, f); err != nil {
		return err
	} else if n != header.Size {
		return errors.New("the file changed while it was read")
	}
	return nil
}

func sortedKeys(entries map[string]entry) []string {
	keys := make([]string, 0, len(entries))
	for key := range entries {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
