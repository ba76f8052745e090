package wait

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Follow calls changed for every object of a kind, now and whenever it changes, and gone when one
// is there no more, until ctx ends. Calls come one at a time, and an object's identity is its UID.
func Follow[T client.Object](
	ctx context.Context, c client.WithWatch, newList func() client.ObjectList,
	changed, gone func(T),
) {
	f := &follower[T]{known: map[types.UID]T{}, changed: changed, gone: gone}
	for {
		list := newList()
		if err := c.List(ctx, list); err == nil {
			f.replace(list)
			events, err := c.Watch(
				ctx,
				newList(),
				&client.ListOptions{
					Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()},
				},
			)
			if err == nil {
				f.run(events)
			}
		}
		if !Pause(ctx, RetryEvery) {
			return
		}
	}
}

type follower[T client.Object] struct {
	known         map[types.UID]T
	changed, gone func(T)
}

// replace takes a list as all there is.
func (f *follower[T]) replace(list client.ObjectList) {
	listed := map[types.UID]bool{}
	_ = meta.EachListItem(list, func(item runtime.Object) error { // fails for what isn't a list
		if object, ok := item.(T); ok {
			listed[object.GetUID()] = true
			f.put(object)
		}
		return nil
	})
	for uid, object := range f.known {
		if !listed[uid] {
			f.remove(object)
		}
	}
}

// run takes events until the watch ends.
func (f *follower[T]) run(events watch.Interface) {
	defer events.Stop()
	for event := range events.ResultChan() {
		object, ok := event.Object.(T)
		if !ok {
			return // a Status: the version is too old
		}
		switch event.Type {
		case watch.Added, watch.Modified:
			f.put(object)
		case watch.Deleted:
			f.remove(object)
		default:
		}
	}
}

func (f *follower[T]) put(object T) {
	if old, ok := f.known[object.GetUID()]; ok &&
		old.GetResourceVersion() == object.GetResourceVersion() {
		return
	}
	f.known[object.GetUID()] = object
	f.changed(object)
}

func (f *follower[T]) remove(object T) {
	if _, ok := f.known[object.GetUID()]; ok {
		delete(f.known, object.GetUID())
		f.gone(object)
	}
}
