// Command lowcaprunc is a runtime for Docker on hosts whose own bounding set lacks capabilities
// that Docker gives to privileged containers, or that may not raise their limits: some virtual
// machines and nested containers are like that, and there runc fails with "operation not
// permitted". It takes from a container's configuration, and from that of a process executed in
// one, what this host can't give, and runs runc with the same arguments. On any other host it
// changes nothing.
//
// hack/docker builds it and starts Docker with it. The specification of config.json is OCI's:
// https://github.com/opencontainers/runtime-spec/blob/main/config.md
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "lowcaprunc:", err)
		os.Exit(1)
	}
}

// run doesn't return unless it fails: the process becomes runc.
func run(args []string) error {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	lacking, err := lackingCapabilities("/proc/self/status")
	if err != nil {
		return err
	}
	if file, isProcess := specFile(args[1:]); file != "" && len(lacking) > 0 {
		if err := rewrite(file, isProcess, lacking); err != nil {
			return fmt.Errorf("lowering %s: %w", file, err)
		}
	}
	return syscall.Exec(runc, append([]string{runc}, args[1:]...), os.Environ())
}

// specFile finds the file that says what is to run: a bundle's config.json for create and run, a
// process file for exec.
func specFile(args []string) (file string, isProcess bool) {
	command, bundle, process := "", ".", ""
	for i, arg := range args {
		name, value, inline := strings.Cut(arg, "=")
		if !inline && i+1 < len(args) {
			value = args[i+1]
		}
		switch name {
		case "create", "run", "exec":
			if command == "" {
				command = name
			}
		case "--bundle", "-b":
			bundle = value
		case "--process", "-p":
			process = value
		}
	}
	switch command {
	case "create", "run":
		return filepath.Join(bundle, "config.json"), false
	case "exec":
		return process, true
	}
	return "", false
}

// rewrite replaces the file. Fields that it knows nothing of stay as they are.
func rewrite(file string, isProcess bool, lacking map[string]bool) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	spec := map[string]any{}
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	process := spec
	if !isProcess {
		var ok bool
		if process, ok = spec["process"].(map[string]any); !ok {
			return errors.New("process: expected an object")
		}
	}
	lower(process, lacking)
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// lower takes from a process what can't be given: capabilities, and what CAP_SYS_RESOURCE would be
// needed for.
func lower(process map[string]any, lacking map[string]bool) {
	if sets, ok := process["capabilities"].(map[string]any); ok {
		for name, set := range sets {
			list, _ := set.([]any)
			kept := []any{}
			for _, capability := range list {
				if text, ok := capability.(string); !ok || !lacking[text] {
					kept = append(kept, capability)
				}
			}
			sets[name] = kept
		}
	}
	if lacking["CAP_SYS_RESOURCE"] {
		delete(process, "rlimits")
		delete(process, "oomScoreAdj")
	}
}
