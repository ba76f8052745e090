package manifests

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// An object is one of a manifest, as it stands there: what isn't written isn't in it.
type object struct {
	unstructured.Unstructured
	text string
}

func (o object) String() string {
	return strings.Trim(o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName(), "/")
}

// parse splits a manifest. Documents without content don't count.
func parse(t *testing.T, manifest string) (objects []object) {
	t.Helper()
	for reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifest))); ; {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("reading a manifest: %v", err)
		}
		data, err := utilyaml.ToJSON(text)
		if err != nil {
			t.Fatalf("reading a manifest: %v:\n%s", err, text)
		}
		if string(data) == "null" {
			continue
		}
		o := object{text: string(text)}
		if err := o.UnmarshalJSON(data); err != nil {
			t.Fatalf("reading a manifest: %v:\n%s", err, text)
		}
		objects = append(objects, o)
	}
}

// typed decodes each object into its Go type, strictly: keys that the type doesn't know, and keys
// twice, are errors.
func typed(objects []object) (decoded []runtime.Object, err error) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).
		UniversalDeserializer()
	for _, o := range objects {
		d, _, err := decoder.Decode([]byte(o.text), nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o, err)
		}
		decoded = append(decoded, d)
	}
	return decoded, nil
}

// only picks the objects of one type.
func only[T runtime.Object](t *testing.T, objects []object) (picked []T) {
	t.Helper()
	decoded, err := typed(objects)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range decoded {
		if o, is := d.(T); is {
			picked = append(picked, o)
		}
	}
	return picked
}

// differences says what is not the same in two manifests. Their order doesn't matter, nor the
// spelling of JSON within a ConfigMap. Everything else does.
func differences(a, b []object) (all []string) {
	inA, inB := byName(a), byName(b)
	names := maps.Clone(inA)
	maps.Copy(names, inB)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if d := cmp.Diff(inA[name], inB[name]); d != "" {
			all = append(all, name+" (-first +second):\n"+d)
		}
	}
	return all
}

// byName is what each object means. One name twice makes an entry of its own.
func byName(objects []object) map[string]any {
	all := map[string]any{}
	for _, o := range objects {
		name := o.String()
		for all[name] != nil {
			name += " again"
		}
		all[name] = meaning(o)
	}
	return all
}

func meaning(o object) any {
	fields := runtime.DeepCopyJSON(o.Object)
	if data, is := fields["data"].(map[string]any); is && o.GetKind() == "ConfigMap" {
		for key, value := range data {
			var read any
			if text, is := value.(string); is && strings.HasSuffix(key, ".json") &&
				json.Unmarshal([]byte(text), &read) == nil {
				data[key] = read
			}
		}
	}
	return fields
}
