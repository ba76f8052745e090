package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// runIndex makes an OCI layout with one entry, a multi-platform image of the given archives.
// Pushing it is one command, and nodes of each platform then pull the same name.
func runIndex(args []string) error {
	flags := flag.NewFlagSet("image index", flag.ContinueOnError)
	dir := flags.String("layout", "", "the folder to write; what was in it is removed")
	tag := flags.String("tag", "", "the image's name, with its tag")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *tag == "" || flags.NArg() == 0 {
		return errors.New("-layout, -tag and at least one archive are needed")
	}
	tags, err := parseTags([]string{*tag})
	if err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, file := range flags.Args() {
		image, platform, err := readArchive(file)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return writeLayout(*dir, index, tags[0].String())
}

// readArchive gives the one image of an archive, with the media types of OCI, which an archive has
// no place for.
func readArchive(file string) (v1.Image, *v1.Platform, error) {
	archived, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", file, err)
	}
	config, err := archived.ConfigFile()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the configuration in %s: %w", file, err)
	}
	layers, err := archived.Layers()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the layers in %s: %w", file, err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		types.OCIConfigJSON)
	for _, layer := range layers {
		image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayer})
		if err != nil {
			return nil, nil, fmt.Errorf("copying a layer of %s: %w", file, err)
		}
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, nil, fmt.Errorf("copying the configuration in %s: %w", file, err)
	}
	return image,
		&v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}, nil
}

// writeLayout writes a layout beside dir, and swaps it in when it is whole.
func writeLayout(dir string, index v1.ImageIndex, tag string) error {
	dir = filepath.Clean(dir)
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".")
	if err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	written, err := layout.Write(temp, empty.Index)
	if err != nil {
		return fmt.Errorf("writing the layout in %s: %w", dir, err)
	}
	name := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})
	if err := written.AppendIndex(index, name); err != nil {
		return fmt.Errorf("writing the image in %s: %w", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the last %s: %w", dir, err)
	}
	if err := os.Rename(temp, dir); err != nil {
		return fmt.Errorf("putting %s in its place: %w", dir, err)
	}
	return nil
}
