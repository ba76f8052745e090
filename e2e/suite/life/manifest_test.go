package life

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/e2e/suite/framework"
)

// readManifest reads a file of the repository's dist folder.
func readManifest(name string) []*unstructured.Unstructured {
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "dist", name))
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	var objects []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			gomega.ExpectWithOffset(1, objects).NotTo(gomega.BeEmpty(), "objects of %s", name)
			return objects
		}
		gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred(), "reading %s", name)
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// applyManifest creates each object, as "kubectl apply" does with what isn't there, or leaves it.
func applyManifest(ctx context.Context, cluster *framework.TheCluster,
	objects []*unstructured.Unstructured) {
	for _, object := range objects {
		gomega.EventuallyWithOffset(1, ctx, func() error {
			err := cluster.Objects.Create(ctx, object.DeepCopy())
			if apierrors.IsAlreadyExists(err) {
				return nil
			}
			return err
		}).WithContext(ctx).Should(gomega.Succeed(), "creating %s %s", object.GetKind(),
			object.GetName())
	}
}

// deleteManifest deletes each object, and waits until it is gone.
func deleteManifest(ctx context.Context, cluster *framework.TheCluster,
	objects []*unstructured.Unstructured) {
	for _, object := range slices.Backward(objects) {
		gomega.EventuallyWithOffset(1, ctx, func() error {
			err := cluster.Objects.Delete(ctx, object.DeepCopy(),
				client.PropagationPolicy("Background"))
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(errors.New("it is still there"), err)
		}).WithContext(ctx).WithTimeout(3*time.Minute).
			Should(gomega.Succeed(), "deleting %s %s", object.GetKind(), object.GetName())
	}
}

// parseAddr reads an address that the API server wrote.
func parseAddr(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	return addr
}
