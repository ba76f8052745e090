package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/overlay"
)

// TestAlike: the chart makes what the kustomizations make.
func TestAlike(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		t.Run(v.name(), func(t *testing.T) {
			t.Parallel()
			if d := differences(kustomize(t, v.kustomization), helm(t, v.values)); len(d) > 0 {
				t.Errorf("%s and the chart with %q differ:\n%s", v.kustomization, v.values,
					strings.Join(d, "\n"))
			}
		})
	}
}

// TestNoTwoAlike: the variants do differ, and so do renderings with other values.
func TestNoTwoAlike(t *testing.T) {
	t.Parallel()
	rendered := map[string][]object{}
	for _, v := range variants {
		rendered[v.name()] = kustomize(t, v.kustomization)
	}
	for _, values := range []string{
		"netConf: {Network: 10.245.0.0/16}", "image: {tag: v0.0.0}",
		"extraArgs: [--forward-accept]", "tolerations: []", "maxUnavailable: 2",
	} {
		rendered[values] = helm(t, values)
	}
	for a, first := range rendered {
		for b, second := range rendered {
			if a != b && len(differences(first, second)) == 0 {
				t.Errorf("no difference between %s and %s", a, b)
			}
		}
	}
}

// TestEveryChangeIsSeen alters one value after the other, takes away one list entry, key or object
// after the other, and has the comparison name the object each time.
func TestEveryChangeIsSeen(t *testing.T) {
	t.Parallel()
	first, second := kustomize(t, "config/default"), helm(t, "")
	if d := differences(first, second); len(d) > 0 {
		t.Fatalf("they differ unchanged: %s", strings.Join(d, "\n"))
	}
	changes := 0
	for i, o := range second {
		alter(o.Object, func(what string) {
			changes++
			d := differences(first, second)
			if len(d) == 0 || !slices.ContainsFunc(d,
				func(s string) bool { return strings.HasPrefix(s, o.GetKind()) }) {
				t.Errorf("%s: %s: not seen in %q", o, what, d)
			}
		})
		changes++
		if d := differences(first, slices.Concat(second[:i], second[i+1:])); len(d) != 1 ||
			!strings.HasPrefix(d[0], o.String()+" ") {
			t.Errorf("%s is missing: seen as %q", o, d)
		}
		changes++
		if d := differences(first, append(slices.Clone(second), o)); len(d) != 1 ||
			!strings.HasPrefix(d[0], o.String()+" again") {
			t.Errorf("%s is there twice: seen as %q", o, d)
		}
	}
	if d := differences(first, second); len(d) > 0 {
		t.Errorf("the changes weren't undone: %s", strings.Join(d, "\n"))
	}
	t.Logf("%d changes", changes)
	if changes < 200 {
		t.Errorf("%d changes: expected hundreds", changes)
	}
}

// alter changes a value and all within, one place after the other, and puts each back when seen has
// returned.
func alter(fields map[string]any, seen func(what string)) {
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		was := fields[key]
		delete(fields, key)
		seen("without " + key)
		alterValue(was, func(value any, what string) {
			fields[key] = value
			seen(key + what)
		})
		fields[key] = was
	}
}

func alterValue(was any, set func(value any, what string)) {
	switch value := was.(type) {
	case map[string]any:
		alter(value, func(what string) { set(value, "."+what) })
	case []any:
		for i, item := range value {
			set(slices.Concat(value[:i], value[i+1:]), fmt.Sprintf("[%d] is missing", i))
			alterValue(item, func(other any, what string) {
				set(slices.Concat(value[:i], []any{other}, value[i+1:]),
					fmt.Sprintf("[%d]%s", i, what))
			})
		}
	case string:
		set(value+"x", " is longer")
	case bool:
		set(!value, " is the opposite")
	case int64:
		set(value+1, " is more")
	default:
		panic(fmt.Sprintf("a value of type %T in a manifest", was))
	}
}

// TestNetConf: the agent takes the configuration of each variant, or gets none.
func TestNetConf(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		maps := only[*corev1.ConfigMap](t, kustomize(t, v.kustomization))
		want := 1
		if v.name() != "policy-only" && len(maps) != want ||
			v.name() == "policy-only" && len(maps) != 0 {
			t.Errorf("%s has %d ConfigMaps", v.kustomization, len(maps))
		}
		for _, m := range maps {
			if _, err := overlay.ParseConfig([]byte(m.Data["net-conf.json"])); err != nil {
				t.Errorf("%s: %v", v.kustomization, err)
			}
		}
	}
}
