package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	definition    = "clusternetworkpolicies.policy.networking.k8s.io"
	channelOf     = "policy.networking.k8s.io/channel"
	bundleVersion = "policy.networking.k8s.io/bundle-version"
	keep          = "helm.sh/resource-policy"
)

// withComponent renders what a user's overlay makes of config/default and a component.
func withComponent(t *testing.T, component string) []object {
	t.Helper()
	overlay := t.TempDir()
	root, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	root, err = filepath.Rel(overlay, root)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("resources: [%s/config/default]\ncomponents: [%s/config/components/%s]\n",
		root, root, component)
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text),
		0o600); err != nil {
		t.Fatal(err)
	}
	return kustomize(t, overlay)
}

func definitionsOf(objects []object) (found []object) {
	for _, o := range objects {
		if o.GetKind() == "CustomResourceDefinition" {
			found = append(found, o)
		}
	}
	return found
}

// TestDefinitions: a kustomize component and the chart install the same definition, that of the
// version in go.mod, beside all else; and none if nobody asks for it.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	modules, err := os.ReadFile(filepath.Join(repository, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`sigs.k8s.io/network-policy-api (v\S+)`).FindSubmatch(modules)
	if version == nil {
		t.Fatal("go.mod has no network-policy-api")
	}
	plain := kustomize(t, "config/default")
	if found := append(definitionsOf(plain), definitionsOf(helm(t, ""))...); len(found) > 0 {
		t.Errorf("without being asked for: %v", found)
	}
	for _, channel := range []string{"standard", "experimental"} {
		objects := withComponent(t, "clusternetworkpolicies-"+channel)
		ours, charts := definitionsOf(objects),
			definitionsOf(helm(t, "clusterNetworkPolicies: "+channel))
		if len(ours) != 1 || len(charts) != 1 || len(objects) != len(plain)+1 {
			t.Errorf("%s: %v and %v of %d objects, expected one more than %d", channel, ours,
				charts, len(objects), len(plain))
			continue
		}
		crd := ours[0]
		if diff := cmp.Diff(crd.Object["spec"], charts[0].Object["spec"]); diff != "" {
			t.Errorf("%s: the chart's differs (-kustomize +chart):\n%s", channel, diff)
		}
		for what, pair := range map[string][2]string{
			"name":    {crd.GetName(), definition},
			"version": {crd.GetAnnotations()[bundleVersion], string(version[1])},
			"chart's": {charts[0].GetAnnotations()[bundleVersion], string(version[1])},
			// It isn't Sluice's: who deletes by its label means others.
			"label":           {crd.GetLabels()["app.kubernetes.io/name"], ""},
			"chart's label":   {charts[0].GetLabels()["app.kubernetes.io/name"], ""},
			"on uninstall":    {charts[0].GetAnnotations()[keep], "keep"},
			"channel":         {crd.GetAnnotations()[channelOf], channel},
			"chart's channel": {charts[0].GetAnnotations()[channelOf], channel},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: %s is %q, expected %q", channel, what, pair[0], pair[1])
			}
		}
	}
}
