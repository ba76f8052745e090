package optional

import (
	"context"
	"fmt"
	"sync"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Store gets the objects, each an *unstructured.Unstructured, from one goroutine at a time.
type Store interface {
	cache.ReflectorStore
	// Incomplete says that there may be objects that the Store doesn't have, and why.
	Incomplete(why error)
	// Complete says that it has all, as of the last call of Replace.
	Complete()
}

// Watch follows the objects of a Resource.
type Watch struct {
	Resource Resource
	// Definitions lists and watches the Resource's definition alone.
	Definitions cache.ListerWatcher
	// Objects lists and watches the objects in a version.
	Objects func(version string) cache.ListerWatcher
	Store   Store
	// Unwatched is called when the objects aren't followed any more; may be nil.
	Unwatched func()
	Log       logr.Logger
}

// Run follows the definition and the objects until ctx ends. Before it knows of all objects the
// Store is told that it lacks some.
func (w *Watch) Run(ctx context.Context) {
	w.Store.Incomplete(fmt.Errorf("the API server wasn't asked yet whether it has %s",
		w.Resource.Definition()))
	f := &follower{watch: w, ctx: ctx}
	defer f.stop()
	like := &unstructured.Unstructured{}
	like.SetGroupVersionKind(
		apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	stream(ctx, w.Log, w.Definitions, like, definitions{f})
}

// stream puts what a ListerWatcher has into a store, until ctx ends.
func stream(ctx context.Context, log logr.Logger, from cache.ListerWatcher,
	like *unstructured.Unstructured, into cache.ReflectorStore) {
	options := cache.ReflectorOptions{Name: like.GetKind()}
	cache.NewReflectorWithOptions(from, like, into, options).
		RunWithContext(klog.NewContext(ctx, log))
}

// follower follows the objects in the version that the definition has. Its methods are called by
// one goroutine.
type follower struct {
	watch *Watch
	ctx   context.Context //nolint:containedctx // of the Run that this is a part of
	// established is the definition that was last found so; empty after it is gone.
	established types.UID
	followed    state // zero for nothing
	cancel      context.CancelFunc
	ended       sync.WaitGroup
}

// state is what decides about the objects that an API server sends: one definition, as it is, and a
// version of it.
type state struct {
	uid        types.UID
	generation int64
	version    string
}

// stop returns when nothing is put into the Store any more.
func (f *follower) stop() {
	if f.cancel != nil {
		f.cancel()
		f.ended.Wait()
		if f.watch.Unwatched != nil {
			f.watch.Unwatched()
		}
	}
	f.cancel, f.followed = nil, state{}
}

// gone is called when there is no definition, and so are no objects.
func (f *follower) gone() error {
	if f.established != "" {
		f.watch.Log.Info("A custom resource is gone, and its objects with it", "resource",
			f.watch.Resource.Definition())
	}
	f.stop()
	f.established = ""
	if err := f.watch.Store.Replace(nil, ""); err != nil {
		return err
	}
	f.watch.Store.Complete()
	return nil
}

// unknown is called when there may be objects, but they can't be read. Those in the Store stay.
func (f *follower) unknown(why error) {
	f.stop()
	f.watch.Store.Incomplete(why)
}

func (f *follower) follow(definition *apiextensionsv1.CustomResourceDefinition) error {
	version, err := f.watch.Resource.served(definition, definition.UID == f.established)
	now := state{definition.UID, definition.Generation, version}
	switch {
	case err != nil:
		f.unknown(err)
		return nil
	case version == "":
		return f.gone()
	case now == f.followed:
		return nil
	}
	f.stop()
	f.watch.Store.Incomplete(fmt.Errorf("%s: not listed yet", f.watch.Resource.Definition()))
	f.established, f.followed = definition.UID, now
	f.start(version)
	return nil
}

func (f *follower) start(version string) {
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(f.ctx)
	f.watch.Log.Info("Following a custom resource", "resource", f.watch.Resource.Definition(),
		"version", version)
	like := &unstructured.Unstructured{}
	like.SetGroupVersionKind(f.watch.Resource.kind(version))
	f.ended.Go(func() {
		stream(ctx, f.watch.Log, f.watch.Objects(version), like, listed{f.watch.Store})
	})
}

// listed tells a Store that it is complete after each list.
type listed struct{ Store }

func (l listed) Replace(list []any, resourceVersion string) error {
	if err := l.Store.Replace(list, resourceVersion); err != nil {
		return err
	}
	l.Complete()
	return nil
}
