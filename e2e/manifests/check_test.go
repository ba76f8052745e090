package manifests

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestCheckPolicyOnly: the check for policy alone is the other with the flag, in each container.
func TestCheckPolicyOnly(t *testing.T) {
	t.Parallel()
	want, got := podOf(t, checking), podOf(t, checkingPolicy)
	for _, containers := range [][]corev1.Container{want.InitContainers, want.Containers} {
		for i := range containers {
			containers[i].Args = append(containers[i].Args, "--policy-only")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-config/check with the flag +config/check-policy-only:\n%s", diff)
	}
}
