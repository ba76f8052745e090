package optional

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ErrUnreadable says that an API server has a resource, but not as it is known here.
var ErrUnreadable = errors.New("a custom resource that can't be read here")

var errInstalling = errors.New("it is being installed")

// Resource is a custom resource of the whole cluster, as its definition names it.
type Resource struct {
	Group, Plural, Kind string
	// Versions are those that are known here, the best first.
	Versions []string
}

// Definition is the name of the resource's CustomResourceDefinition.
func (r Resource) Definition() string { return r.Plural + "." + r.Group }

func (r Resource) kind(version string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: version, Kind: r.Kind}
}

// served is the best version in which an API server has the objects, by their definition; empty if
// it can have none of them. The error says that there may be objects, but that they can't be read
// here, or not yet. A definition that was established before stays so.
func (r Resource) served(definition *apiextensionsv1.CustomResourceDefinition,
	wasEstablished bool) (version string, err error) {
	has := func(condition apiextensionsv1.CustomResourceDefinitionConditionType) bool {
		return slices.ContainsFunc(definition.Status.Conditions,
			func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
				return c.Type == condition && c.Status == apiextensionsv1.ConditionTrue
			})
	}
	switch {
	case wasEstablished || has(apiextensionsv1.Established):
	case has(apiextensionsv1.NamesAccepted): // an API server may serve it by then
		return "", fmt.Errorf("CustomResourceDefinition %s: %w", r.Definition(), errInstalling)
	default:
		return "", nil
	}
	if scope := definition.Spec.Scope; scope != apiextensionsv1.ClusterScoped {
		return "", fmt.Errorf("%w: CustomResourceDefinition %s has scope %q, expected %q",
			ErrUnreadable, r.Definition(), scope, apiextensionsv1.ClusterScoped)
	}
	var all []string
	for _, v := range definition.Spec.Versions {
		if v.Served {
			all = append(all, v.Name)
		}
	}
	for _, known := range r.Versions {
		if slices.Contains(all, known) {
			return known, nil
		}
	}
	return "", fmt.Errorf("%w: CustomResourceDefinition %s serves [%s], expected %s",
		ErrUnreadable, r.Definition(), strings.Join(all, ", "), strings.Join(r.Versions, " or "))
}
