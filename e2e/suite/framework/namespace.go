package framework

import (
	"context"
	"slices"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Namespace makes a namespace whose name starts with "e2e-" and name, and returns its whole name.
// Its deletion, with all that is in it, is begun after the spec (after the container, if it was
// made in a BeforeAll) and not waited for.
func (c *TheCluster) Namespace(ctx context.Context, name string, labels map[string]string) string {
	wanted := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-" + name + "-",
		Labels: labels}}
	var made *corev1.Namespace
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) (err error) {
		made, err = c.Client.CoreV1().Namespaces().Create(ctx, wanted, metav1.CreateOptions{})
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "making namespace %s", name)
	c.track(made.Name)
	ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) {
		c.untrack(made.Name)
		gomega.Eventually(ctx, func(ctx context.Context) error {
			err := c.Client.CoreV1().Namespaces().Delete(ctx, made.Name, metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}).WithContext(ctx).Should(gomega.Succeed(), "deleting namespace %s", made.Name)
	}, ginkgo.NodeTimeout(time.Minute))
	// No pod can be made before.
	gomega.EventuallyWithOffset(1, ctx, func(ctx context.Context) error {
		_, err := c.Client.CoreV1().ServiceAccounts(made.Name).
			Get(ctx, "default", metav1.GetOptions{})
		return err
	}).WithContext(ctx).Should(gomega.Succeed(), "waiting for the ServiceAccount of namespace %s",
		made.Name)
	return made.Name
}

func (c *TheCluster) track(namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.namespaces = append(c.namespaces, namespace)
}

func (c *TheCluster) untrack(namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.namespaces = slices.DeleteFunc(c.namespaces, func(tracked string) bool {
		return tracked == namespace
	})
}

// tracked are the namespaces that running specs made.
func (c *TheCluster) tracked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.namespaces)
}
