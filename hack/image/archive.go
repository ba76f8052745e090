package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// writeArchive writes what "docker save" would write of an image: its configuration, its layers,
// and manifest.json. The library's own writer lists several tags in an order that changes from run
// to run.
func writeArchive(w io.Writer, image v1.Image, tags []name.Tag) error {
	config, err := image.RawConfigFile()
	if err != nil {
		return fmt.Errorf("reading the image's configuration: %w", err)
	}
	configName, err := image.ConfigName()
	if err != nil {
		return fmt.Errorf("hashing the image's configuration: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return fmt.Errorf("listing the image's layers: %w", err)
	}
	archive := tar.NewWriter(w)
	if err := writeEntry(archive, configName.String(), int64(len(config)),
		bytes.NewReader(config)); err != nil {
		return err
	}
	descriptor := tarball.Descriptor{Config: configName.String()}
	for _, tag := range tags {
		descriptor.RepoTags = append(descriptor.RepoTags, tag.String())
	}
	for _, layer := range layers {
		file, err := writeLayer(archive, layer)
		if err != nil {
			return err
		}
		descriptor.Layers = append(descriptor.Layers, file)
	}
	manifest, err := json.Marshal(tarball.Manifest{descriptor})
	if err != nil {
		return fmt.Errorf("writing manifest.json: %w", err)
	}
	if err := writeEntry(archive, "manifest.json", int64(len(manifest)),
		bytes.NewReader(manifest)); err != nil {
		return err
	}
	return archive.Close()
}

func writeLayer(archive *tar.Writer, layer v1.Layer) (file string, err error) {
	digest, err := layer.Digest()
	if err != nil {
		return "", fmt.Errorf("hashing a layer: %w", err)
	}
	size, err := layer.Size()
	if err != nil {
		return "", fmt.Errorf("measuring a layer: %w", err)
	}
	content, err := layer.Compressed()
	if err != nil {
		return "", fmt.Errorf("compressing a layer: %w", err)
	}
	defer content.Close()
	file = digest.Hex + ".tar.gz"
	return file, writeEntry(archive, file, size, content)
}

func writeEntry(archive *tar.Writer, file string, size int64, content io.Reader) error {
	if err := archive.WriteHeader(
		&tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o644, Size: size}); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	if _, err := io.Copy(archive, content); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}

// writeFile has write fill a file that takes path's place once it is whole.
func writeFile(path string, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("putting %s in its place: %w", path, err)
	}
	return nil
}
