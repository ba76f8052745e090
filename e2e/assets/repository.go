package assets

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
)

const (
	etcdModule       = "go.etcd.io/etcd/server/v3"
	kubernetesModule = "k8s.io/kubernetes"
)

// repository is the folder that this project's files are in.
type repository string

func (r repository) file(elements ...string) string {
	return filepath.Join(append([]string{string(r)}, elements...)...)
}

// findRepository looks upwards from the working directory, then from the program's own folder.
func findRepository() (repository, error) {
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if program, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(program))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil &&
				bytes.HasPrefix(text, []byte("module github.com/sluice-net/sluice\n")) {
				return repository(dir), nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("neither the working directory nor this program is inside a clone of " +
		"the Sluice repository, whose sources a lab builds")
}

// ReadFile returns a file of the repository, by its path in there.
func ReadFile(path string) ([]byte, error) {
	repo, err := findRepository()
	if err != nil {
		return nil, err
	}
	return os.ReadFile(repo.file(filepath.FromSlash(path)))
}

// pins are the versions that the modules beside this package require.
type pins struct {
	etcd, kubernetes string // v3.6.16, v1.36.3
	major, minor     string // of Kubernetes
	key              string // of what is built from them
}

func readPins(repo repository) (pins, error) {
	var p pins
	sum := sha256.New()
	for _, module := range []struct {
		folder, path string
		version      *string
	}{{"etcd", etcdModule, &p.etcd}, {"kubernetes", kubernetesModule, &p.kubernetes}} {
		file := repo.file("e2e", "assets", module.folder, "go.mod")
		text, err := os.ReadFile(file)
		if err != nil {
			return pins{}, fmt.Errorf("reading versions: %w", err)
		}
		_, _ = sum.Write(text) // a hash takes anything
		if *module.version, err = moduleVersion(repo, module.folder, module.path); err != nil {
			return pins{}, err
		}
	}
	parts := regexp.MustCompile(`^v(\d+)\.(\d+)\.`).FindStringSubmatch(p.kubernetes)
	if parts == nil {
		return pins{}, fmt.Errorf("%s %s: not a version", kubernetesModule, p.kubernetes)
	}
	p.major, p.minor = parts[1], parts[2]
	p.key = runtime.GOARCH + "-" + p.kubernetes + "-" + hex.EncodeToString(sum.Sum(nil))[:12]
	return p, nil
}

// File is the path of a file or folder of the repository.
func File(elements ...string) (string, error) {
	repo, err := findRepository()
	if err != nil {
		return "", err
	}
	return repo.file(elements...), nil
}
