package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// apt is Debian's package manager with a state of its own, apart from this machine's.
type apt struct {
	folder  string
	options []string
}

var defaultMirror = regexp.MustCompile(`(?m)^DEF_MIRROR="(\S+)"$`)

// mirror is where Debian's packages come from: $DEBIAN_MIRROR, or what debootstrap takes if nothing
// is said.
func mirror() (string, error) {
	if url := os.Getenv("DEBIAN_MIRROR"); url != "" {
		return url, nil
	}
	path, err := exec.LookPath("debootstrap")
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	found := defaultMirror.FindSubmatch(program)
	if found == nil {
		return "",
			fmt.Errorf("DEBIAN_MIRROR is empty, and %s names no mirror: expected the URL of one",
				path)
	}
	return string(found[1]), nil
}

func newApt(ctx context.Context, folder, suite string) (*apt, error) {
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(folder, sub), 0o755); err != nil {
			return nil, err
		}
	}
	url, err := mirror()
	if err != nil {
		return nil, err
	}
	list := filepath.Join(folder, "sources.list")
	line := fmt.Sprintf(
		"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n",
		url, suite)
	if err := os.WriteFile(list, []byte(line), 0o644); err != nil {
		return nil, err
	}
	a := &apt{folder: folder, options: []string{"-qq", "-o", "Dir::Etc::sourcelist=" + list,
		"-o", "Dir::Etc::sourceparts=-", "-o",
		"Dir::State::lists=" + filepath.Join(folder, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(folder, "cache"), "-o", "APT::Sandbox::User=",
		// nothing is installed: what is needed is downloaded whole
		"-o", "Dir::State::status=/dev/null"}}
	if _, err = a.run(ctx, "", "apt-get", "update"); err != nil {
		return nil, fmt.Errorf("%w\nReleases that Debian has given up move to its archive: "+
			"DEBIAN_MIRROR can name one that still has %s", err, suite)
	}
	return a, nil
}

func (a *apt) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	return command(ctx, dir, program, append(args, a.options...)...)
}

var depends = regexp.MustCompile(`(?m)^\s+Depends: (linux-(?:image|binary|modules)-[0-9]\S*)`)

func (a *apt) depends(ctx context.Context, name string) ([]string, error) {
	text, err := a.run(ctx, "", "apt-cache", "depends", name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, found := range depends.FindAllStringSubmatch(text, -1) {
		names = append(names, found[1])
	}
	return names, nil
}

// kernel names the packages of the suite's kernel. linux-image-amd64 depends on the image of a
// version, which holds everything; since 7.x that one depends on two packages that do.
func (a *apt) kernel(ctx context.Context) ([]string, error) {
	images, err := a.depends(ctx, "linux-image-amd64")
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, errors.New("linux-image-amd64 depends on no linux-image of a version")
	}
	parts, err := a.depends(ctx, images[0])
	if err != nil {
		return nil, err
	}
	if len(parts) > 0 {
		return parts, nil
	}
	return images[:1], nil
}

func (a *apt) version(ctx context.Context, name string) (string, error) {
	text, err := a.run(ctx, "", "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if version, ok := strings.CutPrefix(line, "Version: "); ok {
			return strings.TrimSpace(version), nil
		}
	}
	return "", fmt.Errorf("apt-cache names no version of %s", name)
}

// unpack downloads packages and unpacks them into tree.
func (a *apt) unpack(ctx context.Context, tree string, names []string) error {
	if _, err := a.run(ctx, a.folder, "apt-get",
		append([]string{"download"}, names...)...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(a.folder, "*.deb"))
	if err != nil {
		return err
	}
	for _, p := range packages {
		if _, err := command(ctx, "", "dpkg-deb", "--extract", p, tree); err != nil {
			return err
		}
	}
	return nil
}

// programs of the suite's userland come first in the machine's PATH, each with its package.
var programs = map[string]string{"nft": "nftables", "ipset": "ipset", "ipvsadm": "ipvsadm"}

// programScript runs a program with the libraries that are beside it. Releases have their loader in
// one of two places, and links to it that are absolute.
const programScript = `#!/bin/sh
tree=%s
program=usr/sbin/%s
[ -e "$tree/$program" ] || program=sbin/%[2]s
for folder in lib usr/lib; do
	loader=$tree/$folder/x86_64-linux-gnu/ld-linux-x86-64.so.2
	[ ! -e "$loader" ] || exec "$loader" --library-path \
		"$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu" "$tree/$program" "$@"
done
echo "$tree has no ld-linux-x86-64.so.2" >&2
exit 1
`

// unpackPrograms unpacks the suite's programs with all their libraries, and leaves in FOLDER/bin a
// script for each, which runs it with those.
func (a *apt) unpackPrograms(ctx context.Context, folder string) error {
	args := []string{"install", "--download-only", "--yes", "--no-install-recommends",
		"-o", "Debug::NoLocking=true"}
	args = append(args, slices.Sorted(maps.Values(programs))...)
	if _, err := a.run(ctx, "", "apt-get", args...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(a.folder, "cache/archives/*.deb"))
	if err != nil {
		return err
	}
	tree := filepath.Join(folder, "userland")
	for _, p := range packages {
		if _, err := command(ctx, "", "dpkg-deb", "--extract", p, tree); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(folder, "bin"), 0o755); err != nil {
		return err
	}
	tree = quote(strings.Replace(tree, ".new/", "/", 1)) // where it will be
	for program := range programs {
		script := fmt.Sprintf(programScript, tree, program)
		path := filepath.Join(folder, "bin", program)
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil { //nolint:gosec // it runs
			return err
		}
	}
	return nil
}

// command runs a program in a folder and returns what it printed; its error has what it complained.
func command(ctx context.Context, dir, program string, args ...string) (string, error) {
	//nolint:gosec // the programs that this one names
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err,
			strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}
