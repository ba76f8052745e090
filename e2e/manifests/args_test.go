package manifests

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/e2e/assets"
)

// TestArgs: the agent knows the flags that its containers give it, and takes their values; and it
// serves where the probes ask.
func TestArgs(t *testing.T) {
	t.Parallel()
	programs, err := assets.Wiring(t.Context(), os.Stderr, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, kustomization := range everything() {
		pod := podOf(t, kustomization)
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			usage, err := parseArgs(t.Context(), programs.Agent, c.Args)
			if err != nil {
				t.Errorf("%s, container %s: %v", kustomization, c.Name, err)
			}
			for _, address := range probed(c) {
				if want := fmt.Sprintf("(default %q)", address); !strings.Contains(usage, want) {
					t.Errorf("%s, container %s: probes ask %s, and the agent's usage has no %s",
						kustomization, c.Name, address, want)
				}
			}
		}
		if agent := pod.Containers[0]; agent.Name == "agent" && len(probed(agent)) != 3 {
			t.Errorf("%s: the agent has %d probes", kustomization, len(probed(agent)))
		}
	}
	for _, args := range [][]string{{"--no-such-flag"}, {"--policy-only=maybe"},
		{"no-such-command"}} {
		if _, err := parseArgs(t.Context(), programs.Agent, args); err == nil {
			t.Errorf("control: %q is no error", args)
		}
	}
}

// parseArgs has a program parse its arguments and end with its usage: -h comes last, so what stands
// before it is parsed.
func parseArgs(ctx context.Context, program string, args []string) (usage string, err error) {
	args = append(slices.Clone(args), "-h")
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%q: %w: %.300s", args, err, out)
	}
	return string(out), nil
}

func probed(c corev1.Container) (addresses []string) {
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe != nil && probe.HTTPGet != nil {
			addresses = append(addresses,
				net.JoinHostPort(probe.HTTPGet.Host, probe.HTTPGet.Port.String()))
		}
	}
	return addresses
}
