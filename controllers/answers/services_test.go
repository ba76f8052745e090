package answers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluice-net/sluice/enforcer"
	"github.com/sluice-net/sluice/policy"
	"github.com/sluice-net/sluice/test/cases"
)

// serviceObjects are an API server's Services and EndpointSlices.
type serviceObjects struct {
	client.Reader
	services []corev1.Service
	slices   []discoveryv1.EndpointSlice
	err      error
}

func (s serviceObjects) List(_ context.Context, into client.ObjectList,
	opts ...client.ListOption) error {
	var options client.ListOptions
	options.ApplyOptions(opts)
	switch into := into.(type) {
	case *corev1.ServiceList:
		into.Items = s.services
	case *discoveryv1.EndpointSliceList:
		for _, slice := range s.slices {
			if slice.Namespace == options.Namespace &&
				options.LabelSelector.Matches(labels.Set(slice.Labels)) {
				into.Items = append(into.Items, slice)
			}
		}
	}
	return s.err
}

// endpointSlice has pods as endpoints of a Service, at a port of that name.
func endpointSlice(service string, family int, port string, number int32, ready bool,
	pods ...string) discoveryv1.EndpointSlice {
	out := discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dev",
			Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &number}},
	}
	for _, pod := range pods {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{cases.Addr(pod, family)},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	return out
}

// TestWhyToAService: the answer is about the pods that answer. An address without an owner, or
// whose owner isn't known, is never called allowed.
func TestWhyToAService(t *testing.T) {
	t.Parallel()
	e, _, _ := newEnforcer(t)
	np, err := cases.RenderPolicy("dev/p",
		`{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}`, cases.Addr)
	if err != nil {
		t.Fatal(err)
	}
	e.Update(func(c *enforcer.Model) {
		c.SetNode(policy.NodeFrom(cases.Node()))
		for _, p := range cases.Pods() {
			c.SetPod(policy.PodFrom(p))
		}
		c.SetPolicy(policy.Parse(np))
	})
	api := serviceObjects{
		services: []corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "mixed"},
			Spec: corev1.ServiceSpec{
				ClusterIPs:  []string{"10.96.0.10", "fd00:10:96::10"},
				ExternalIPs: []string{"203.0.113.10"},
				Ports: []corev1.ServicePort{{Name: "http", Port: 8080}, {Name: "open", Port: 8081},
					{Name: "idle", Port: 8082}},
			},
		}},
		slices: []discoveryv1.EndpointSlice{
			endpointSlice("mixed", 4, "http", 81, true, "dev/db", "dev/web"),
			endpointSlice("mixed", 6, "http", 80, true, "dev/db"),
			endpointSlice("mixed", 4, "open", 80, true, "dev/db"),
			endpointSlice("mixed", 4, "idle", 80, false, "dev/db"),
			endpointSlice("other", 4, "open", 81, true, "dev/db"),
		},
	}
	ask := func(api client.Reader, src, dst, port string) (status int, answer WhyAnswer) {
		status, body := askWhyOf(t, e, api, src, dst, port)
		if status != http.StatusOK {
			return status, WhyAnswer{Text: body}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		return status, answer
	}
	web, db, nobody := "dev/web", cases.Addr("dev/db", 4),
		strings.TrimSuffix(cases.Addr("dev/db", 4), ".11")+".77"
	for _, tc := range []struct {
		dst, port string
		allowed   bool
		text      []string
	}{
		{"10.96.0.10", "8080", false, []string{"is Service dev/mixed", db + " TCP 81: denied",
			cases.Addr("dev/web", 4) + " TCP 81: allowed"}},
		{"203.0.113.10", "8081", true, []string{"is Service dev/mixed", db + " TCP 80: allowed"}},
		{"fd00:10:96::10", "8080", true, []string{cases.Addr("dev/db", 6) + " TCP 80: allowed"}},
		{"192.0.2.1", "80", true, []string{"192.0.2.1 TCP 80: allowed"}}, // a host outside
	} {
		status, answer := ask(api, web, tc.dst, tc.port)
		if status != http.StatusOK || answer.Allowed != tc.allowed {
			t.Errorf("%s %s: status %d: %+v", tc.dst, tc.port, status, answer)
		}
		for _, want := range tc.text {
			if !strings.Contains(answer.Text, want) {
				t.Errorf("%s %s: no %q in\n%s", tc.dst, tc.port, want, answer.Text)
			}
		}
	}
	away := serviceObjects{err: errors.New("the API server is away")}
	for _, tc := range []struct {
		api            client.Reader
		src, dst, port string
		want           []string
	}{
		{api, web, nobody, "80", []string{"destination " + nobody, "that no pod has"}},
		{api, nobody, "dev/db", "80", []string{"source " + nobody, "that no pod has"}},
		{api, web, "10.96.0.10", "8082", []string{"dev/mixed has no endpoint that answers"}},
		{api, web, "10.96.0.10", "9", []string{"dev/mixed has no port TCP 9"}},
		{api, web, "10.96.0.10", "8080/udp", []string{"dev/mixed has no port UDP 8080"}},
		{away, web, "10.96.0.10", "8080",
			[]string{"whether it is a Service's isn't known", "the API server is away",
				"kubectl get endpointslices"}},
	} {
		if status, answer := ask(tc.api, tc.src, tc.dst,
			tc.port); status != http.StatusUnprocessableEntity {
			t.Errorf("%s to %s: status %d: %+v", tc.src, tc.dst, status, answer)
		} else {
			for _, want := range tc.want {
				if !strings.Contains(answer.Text, want) {
					t.Errorf("%s to %s: no %q in %s", tc.src, tc.dst, want, answer.Text)
				}
			}
		}
	}
	if status, answer := ask(away, web, "dev/db", "80"); status != http.StatusOK ||
		!answer.Allowed {
		t.Errorf("of a pod nobody is asked: status %d: %+v", status, answer)
	}
}
