package framework

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Apply creates each object, or replaces the one of its name. What it created is deleted after the
// spec (after the container, in a BeforeAll). Objects are filled in as the API server returns them.
func (c *TheCluster) Apply(ctx context.Context, objects ...client.Object) {
	for _, object := range objects {
		created := false
		gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) (err error) {
			created, err = c.apply(ctx, object)
			if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) ||
				apierrors.IsBadRequest(err) {
				return gomega.StopTrying("the API server won't have it").Wrap(err)
			}
			return err
		}).WithContext(ctx).Should(gomega.Succeed(), "applying %s", name(object))
		if created {
			c.deleteAfterwards(object)
		}
	}
}

func (c *TheCluster) apply(ctx context.Context, object client.Object) (created bool, err error) {
	wanted := object.DeepCopyObject().(client.Object)
	wanted.SetResourceVersion("")
	err = c.Objects.Create(ctx, wanted)
	if err == nil {
		copyInto(object, wanted)
		return true, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return false, err
	}
	existing := object.DeepCopyObject().(client.Object)
	if err := c.Objects.Get(ctx, client.ObjectKeyFromObject(object), existing); err != nil {
		return false, err
	}
	wanted = object.DeepCopyObject().(client.Object)
	wanted.SetResourceVersion(existing.GetResourceVersion())
	if err := c.Objects.Update(ctx, wanted); err != nil {
		return false, err
	}
	copyInto(object, wanted)
	return false, nil
}

// copyInto makes *to what *from is. Both are of one type.
func copyInto(to, from client.Object) {
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem())
}

// Remove deletes objects and waits until they are gone. Removing what isn't there is no failure.
func (c *TheCluster) Remove(ctx context.Context, objects ...client.Object) {
	for _, object := range objects {
		gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
			return c.remove(ctx, object)
		}).
			WithContext(ctx).WithTimeout(PodPatience).
			Should(gomega.Succeed(), "removing %s", name(object))
	}
}

// remove returns nil once the object is gone.
func (c *TheCluster) remove(ctx context.Context, object client.Object) error {
	err := c.Objects.Delete(ctx, object.DeepCopyObject().(client.Object),
		client.PropagationPolicy("Background"))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is being deleted", name(object))
}

func (c *TheCluster) deleteAfterwards(object client.Object) {
	object = object.DeepCopyObject().(client.Object)
	ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) {
		c.Remove(ctx, object)
	}, ginkgo.NodeTimeout(2*time.Minute))
}

// name is an object's in messages.
func name(object client.Object) string {
	return fmt.Sprintf("%T %s", object, client.ObjectKeyFromObject(object))
}
