package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// spec is one image to build.
type spec struct {
	tags       []name.Tag
	arch       string // as GOARCH: amd64, arm64
	entrypoint []string
	env        []string // K=V
	labels     map[string]string
	sources    []source
	created    time.Time
}

func runBuild(args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	var tags, entrypoint, env, labels list
	output := flags.String("output", "", "the archive to write")
	arch := flags.String("arch", "", "the platform's architecture, as GOARCH: amd64, arm64")
	flags.Var(&tags, "tag", "the image's name, with its tag; may be repeated")
	flags.Var(&entrypoint, "entrypoint", "the program to run, and, repeated, its arguments")
	flags.Var(&env, "env", "K=V of the program's environment; may be repeated")
	flags.Var(&labels, "label", "K=V to describe the image with; may be repeated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *output == "" || *arch == "" || len(tags) == 0 || flags.NArg() == 0 {
		return errors.New("-output, -arch, -tag and at least one SRC=/dest are needed")
	}
	s := spec{arch: *arch, entrypoint: entrypoint, env: env}
	var err error
	if s.created, err = sourceDate(); err != nil {
		return err
	}
	if s.tags, err = parseTags(tags); err != nil {
		return err
	}
	if s.labels, err = parseLabels(labels); err != nil {
		return err
	}
	for _, arg := range flags.Args() {
		src, err := parseSource(arg)
		if err != nil {
			return err
		}
		s.sources = append(s.sources, src)
	}
	return s.write(*output)
}

// write puts the image's archive at path, or leaves path as it was.
func (s *spec) write(path string) error {
	image, err := s.image()
	if err != nil {
		return err
	}
	return writeFile(path, func(f *os.File) error { return writeArchive(f, image, s.tags) })
}

func (s *spec) image() (v1.Image, error) {
	layer, err := newLayer(s.sources, s.created)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		types.OCIConfigJSON)
	image, err := mutate.Append(base, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: s.created}, CreatedBy: "hack/image"},
	})
	if err != nil {
		return nil, fmt.Errorf("adding the layer to the image: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the image's configuration: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", s.arch, v1.Time{Time: s.created}
	config.Config.Entrypoint, config.Config.Env, config.Config.Labels = s.entrypoint, s.env,
		s.labels
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, fmt.Errorf("setting the image's configuration: %w", err)
	}
	return image, nil
}

// parseTags reads complete names. Without a tag Docker would say "latest", which isn't what anybody
// meant.
func parseTags(args []string) (tags []name.Tag, err error) {
	for _, arg := range args {
		tag, err := name.NewTag(arg)
		if err != nil {
			return nil, fmt.Errorf("reading -tag=%s: %w", arg, err)
		}
		if !strings.HasSuffix(arg, ":"+tag.TagStr()) {
			return nil, fmt.Errorf("-tag=%s has no tag after its name", arg)
		}
		if !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	slices.SortFunc(tags, func(a, b name.Tag) int {
		return strings.Compare(a.String(), b.String())
	})
	return tags, nil
}

func parseLabels(args []string) (map[string]string, error) {
	labels := make(map[string]string, len(args))
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("-label=%s isn't of the form K=V", arg)
		}
		labels[key] = value
	}
	return labels, nil
}

// sourceDate is the time that everything in an image bears. See
// https://reproducible-builds.org/specs/source-date-epoch/
func sourceDate() (time.Time, error) {
	value := os.Getenv("SOURCE_DATE_EPOCH")
	if value == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
