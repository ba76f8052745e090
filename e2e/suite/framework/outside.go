package framework

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sluice-net/sluice/e2e/internal/testprogram"
)

// OutsidePort is what an Outside answers on, over TCP and UDP, with its name ("outside") and the
// client's address.
const OutsidePort = 80

// Outside is a container on the nodes' Docker network that isn't a node: neither a pod nor anything
// the cluster knows.
type Outside struct {
	container string
	addresses []netip.Addr
}

// Outside runs one until the spec's end (the container's, in a BeforeAll).
func (k *Kind) Outside(ctx context.Context) *Outside {
	gomega.ExpectWithOffset(1, k.loadImage(ctx)).
		To(gomega.Succeed(), "loading the test program's image into Docker")
	network, err := docker(ctx, "inspect", "--format",
		"{{range $name, $_ := .NetworkSettings.Networks}}{{println $name}}{{end}}",
		k.ControlPlane())
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred(), "finding the nodes' network")
	network, _, _ = strings.Cut(network, "\n")
	o := &Outside{container: k.Name + "-outside-" + rand.String(6)}
	ginkgo.DeferCleanup(func(ctx ginkgo.SpecContext) error {
		_, err := docker(ctx, "rm", "--force", o.container)
		return err
	}, ginkgo.NodeTimeout(time.Minute))
	port := fmt.Sprint(OutsidePort)
	_, err = docker(ctx, "run", "--detach", "--name", o.container, "--network", network, k.image,
		"serve", "--name", "outside", "--serve", "tcp/"+port, "--serve", "udp/"+port)
	gomega.ExpectWithOffset(1, err).
		NotTo(gomega.HaveOccurred(), "running a container beside the nodes")
	gomega.EventuallyWithOffset(1, ctx, o.Logs).WithContext(ctx).
		Should(gomega.ContainSubstring("serving"), "the log of %s", o)
	o.addresses, err = containerAddresses(ctx, o.container)
	gomega.ExpectWithOffset(1, err).NotTo(gomega.HaveOccurred())
	return o
}

// loadImage copies the test program's image from a node to Docker, so that it is what pods run.
func (k *Kind) loadImage(ctx context.Context) error {
	// With --local, as what comes through containerd's transfer service is short of its end now and
	// then.
	image, err := k.Exec(ctx, k.ControlPlane(), "ctr", "--namespace", "k8s.io", "images", "export",
		"--local", "-", fullImageName(k.image))
	if err != nil {
		return err
	}
	_, err = dockerIn(ctx, strings.NewReader(image), "load")
	return err
}

// fullImageName is what a runtime calls an image: with its registry. Docker's is the one that may
// be left out.
func fullImageName(image string) string {
	first, _, found := strings.Cut(image, "/")
	switch {
	case !found:
		return "docker.io/library/" + image
	case first == "localhost" || strings.ContainsAny(first, ".:"):
		return image
	}
	return "docker.io/" + image
}

func containerAddresses(ctx context.Context, container string) ([]netip.Addr, error) {
	text, err := docker(ctx, "inspect", "--format",
		"{{range .NetworkSettings.Networks}}{{println .IPAddress}}{{println "+
			".GlobalIPv6Address}}{{end}}", container)
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for field := range strings.FieldsSeq(text) {
		if addr, err := netip.ParseAddr(field); err == nil {
			addresses = append(addresses, addr)
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("container %s has no address: %q", container, text)
	}
	return addresses, nil
}

// String names the container in failure messages.
func (o *Outside) String() string { return "container " + o.container }

// Addresses are the container's addresses: of one family or of both, as Docker's network has it.
func (o *Outside) Addresses() []netip.Addr { return o.addresses }

// Address is the container's address of one family, or the zero Addr: Docker's network may have one
// family only.
func (o *Outside) Address(family corev1.IPFamily) netip.Addr {
	return OfFamily(o.addresses, family)
}

// Exec runs the test program with args in the container, and returns what it printed.
func (o *Outside) Exec(ctx context.Context, args ...string) (string, error) {
	return docker(ctx, append([]string{"exec", o.container, Program}, args...)...)
}

// Logs are what the server printed so far.
func (o *Outside) Logs(ctx context.Context) (string, error) {
	return docker(ctx, "logs", o.container)
}

// TryConnect is Source's.
func (o *Outside) TryConnect(ctx context.Context, targets ...string) ([]testprogram.Result, error) {
	stdout, err := o.Exec(ctx, append([]string{"connect"}, targets...)...)
	return readResults(stdout, len(targets), err)
}

// Connect connects once to every target and returns the results in their order.
func (o *Outside) Connect(ctx context.Context, targets ...string) []testprogram.Result {
	return connectFrom(ctx, o, targets)
}
