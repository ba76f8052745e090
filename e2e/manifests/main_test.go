package manifests

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository is where the tests' folder is in.
const repository = "../.."

func TestMain(m *testing.M) {
	if err := makeTools(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// makeTools builds kustomize and Helm where they are missing or old, which takes some minutes the
// first time.
func makeTools() error {
	tools := []string{"bin/kustomize", "bin/helm"}
	fmt.Fprintln(os.Stderr, "==> make", strings.Join(tools, " "))
	command := exec.Command("make",
		append([]string{"--no-print-directory", "-C", repository}, tools...)...)
	// The make that runs this test, if one does, isn't to speak to that one.
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKEFLAGS=") || strings.HasPrefix(v, "MAKELEVEL=") ||
			strings.HasPrefix(v, "MFLAGS=")
	})
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("building the tools of the manifests: %w", err)
	}
	return nil
}

// A variant is a kustomization, and the chart's values that mean the same.
type variant struct {
	kustomization string
	values        string
}

var variants = []variant{
	{kustomization: "config/default"},
	{kustomization: "config/overlays/host-gw", values: "netConf: {Backend: {Type: host-gw}}"},
	{kustomization: "config/overlays/dual-stack",
		values: "netConf: {EnableIPv6: true, IPv6Network: 'fd00:10:244::/56'}"},
	{
		kustomization: "config/overlays/ipv6",
		values: "netConf: {Network: null, EnableIPv4: false, EnableIPv6: true, " +
			"IPv6Network: 'fd00:10:244::/56'}",
	},
	{kustomization: "config/overlays/policy-only", values: "policyOnly: true"},
}

func (v variant) name() string { return filepath.Base(v.kustomization) }

const (
	uninstall      = "config/uninstall"
	checking       = "config/check"
	checkingPolicy = "config/check-policy-only"
	chart          = "charts/sluice"
)

// everything is all kustomizations that users apply.
func everything() (all []string) {
	for _, v := range variants {
		all = append(all, v.kustomization)
	}
	return append(all, uninstall, checking, checkingPolicy)
}

func kustomize(t *testing.T, kustomization string) []object {
	t.Helper()
	out, err := run(t.Context(), "", "bin/kustomize", "build", kustomization)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

// helm renders the chart with values that are YAML.
func helm(t *testing.T, values string) []object {
	t.Helper()
	out, err := helmTemplate(t.Context(), values)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

func helmTemplate(ctx context.Context, values string) (string, error) {
	return run(ctx, values, "bin/helm", "template", "sluice", chart, "--namespace=sluice-system",
		"--set=createNamespace=true", "--values=-")
}

// run runs a program of the repository in the repository.
func run(ctx context.Context, stdin, program string, args ...string) (stdout string, err error) {
	path, err := filepath.Abs(filepath.Join(repository, program))
	if err != nil {
		return "", err
	}
	var out, problems bytes.Buffer
	command := exec.CommandContext(ctx, path, args...)
	command.Dir = repository
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &problems
	if err := command.Run(); err != nil {
		return "",
			fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, problems.String())
	}
	return out.String(), nil
}
