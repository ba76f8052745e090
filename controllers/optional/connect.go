package optional

import (
	"context"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// Connect returns a Watch of a resource of an API server.
func Connect(client dynamic.Interface, r Resource, into Store, log logr.Logger) *Watch {
	return &Watch{
		Resource: r, Store: into, Log: log,
		Definitions: listWatch(client.Resource(apiextensionsv1.SchemeGroupVersion.WithResource(
			"customresourcedefinitions")), fields.OneTermEqualSelector("metadata.name",
			r.Definition())),
		Objects: func(version string) cache.ListerWatcher {
			return listWatch(client.Resource(r.kind(version).GroupVersion().
				WithResource(r.Plural)), fields.Everything())
		},
	}
}

func listWatch(resource dynamic.ResourceInterface, which fields.Selector) cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context,
			o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = which.String()
			return resource.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context,
			o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = which.String()
			return resource.Watch(ctx, o)
		},
	}
}
