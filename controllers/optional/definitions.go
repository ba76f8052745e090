package optional

import (
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// definitions is a store of definitions: it has a follower do what they say, and keeps none. What
// can't be read is no error, which a reflector would log only: there may be objects then.
type definitions struct{ follower *follower }

func (d definitions) Add(in any) error { return d.Update(in) }

func (d definitions) Update(in any) error {
	if !d.isOurs(in) {
		return nil
	}
	definition, err := d.read(in)
	if err != nil {
		d.follower.unknown(err)
		return nil
	}
	return d.follower.follow(definition)
}

func (d definitions) Delete(in any) error {
	if !d.isOurs(in) {
		return nil
	}
	return d.follower.gone()
}

func (d definitions) Replace(list []any, _ string) error {
	for _, in := range list {
		if d.isOurs(in) {
			return d.Update(in)
		}
	}
	return d.follower.gone()
}

func (d definitions) Resync() error { return nil }

// isOurs is false for a definition of something else: who answers may know no field selectors.
func (d definitions) isOurs(in any) bool {
	object, ok := in.(*unstructured.Unstructured)
	return ok && object.GetName() == d.follower.watch.Resource.Definition()
}

func (d definitions) read(in any) (*apiextensionsv1.CustomResourceDefinition, error) {
	out := &apiextensionsv1.CustomResourceDefinition{}
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(
		in.(*unstructured.Unstructured).Object, out) // as isOurs has seen
	if err != nil {
		return nil, fmt.Errorf("%w: CustomResourceDefinition %s: %w", ErrUnreadable,
			d.follower.watch.Resource.Definition(), err)
	}
	return out, nil
}
