package manifests

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestRollout: agents are replaced one by one, without a second one beside them, and run on nodes
// that nothing else runs on yet.
func TestRollout(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		daemon := only[*appsv1.DaemonSet](t, kustomize(t, v.kustomization))[0]
		pod := daemon.Spec.Template.Spec
		for what, pair := range map[string][2]any{
			"update strategy": {daemon.Spec.UpdateStrategy, appsv1.DaemonSetUpdateStrategy{
				Type: appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{
					MaxUnavailable: new(intstr.FromInt32(1)), MaxSurge: new(intstr.FromInt32(0))},
			}},
			"minimum ready seconds": {daemon.Spec.MinReadySeconds, int32(0)},
			"tolerations": {pod.Tolerations,
				[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}},
			"priority": {pod.PriorityClassName, "system-node-critical"},
			"nodes":    {pod.NodeSelector, map[string]string{"kubernetes.io/os": "linux"}},
			"limits":   {pod.Containers[0].Resources.Limits, corev1.ResourceList(nil)},
			"environment": {pod.Containers[0].Env, []corev1.EnvVar{{
				Name: "NODE_NAME",
				ValueFrom: &corev1.EnvVarSource{
					FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}},
			}}},
		} {
			if d := cmp.Diff(pair[0], pair[1]); d != "" {
				t.Errorf("%s: %s (-got +want):\n%s", v.kustomization, what, d)
			}
		}
	}
}
