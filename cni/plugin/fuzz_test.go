package plugin

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/sluice-net/sluice/cni"
	"github.com/sluice-net/sluice/test/cnitest"
)

// FuzzPlugin gives the plugin any configuration and arguments, as far as it looks at them without
// an agent. What it refuses it refuses with an error of the specification; what it asks of the
// agent, the agent can read, and would not refuse for its form or size.
func FuzzPlugin(f *testing.F) {
	const args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=dev;K8S_POD_NAME=web-0;" +
		"K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=4d"
	for _, stdin := range []string{
		`{"cniVersion":"1.1.0","name":"sluice","type":"sluice"}`,
		`{"cniVersion":"1.0.0","name":"n","runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"TCP","hostIP":"::ffff:192.0.2.1"}],` +
			`"bandwidth":{"ingressRate":8000,"ingressBurst":800}}}`,
		`{"cniVersion":"1.0.0","name":"n","runtimeConfig":{"portMappings":[{"hostPort":1e400,"containerPort":-0,"protocol":"t\u0000"},null],` +
			`"bandwidth":{"ingressRate":18446744073709551616,"egressBurst":[{}]}}}`,
		`{"cniVersion":"1.1.0","name":"n","mode":"policy","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x"}],` +
			`"ips":[{"address":"10.1.0.1/32","interface":0}],"routes":[{"dst":"0.0.0.0/0"}]}}`,
		`{"cniVersion":"0.4.0","name":"n","mode":"policy","prevResult":{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.1/32"}]}}`,
		`{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}`,
		`{"cniVersion":"1.1.0","name":"n","mode":"policy","prevResult":{"cniVersion":"1.1.0","interfaces":[null],"ips":[null,{"address":"10.1.0.1/32","interface":0}],"routes":[null]}}`,
		`{"cniVersion":"0.4.0","name":"n","mode":"policy","prevResult":{"cniVersion":"0.4.0","interfaces":[null],"ips":[null],"routes":[null]}}`,
		`{"cniVersion":"1.1.0","name":"n","mode":"policy","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/a"}],"ips":[null]}}`,
		`{"cniVersion":"1.1.0","name":"n","mode":"policy","prevResult":{"cniVersion":"1.1.0","interfaces":[null],"ips":[{"address":"10.1.0.1/32","interface":0}]}}`,
		`null`,
	} {
		f.Add([]byte(stdin), args, "c", "eth0", "/run/netns/a")
	}
	f.Fuzz(func(t *testing.T, stdin []byte, cniArgs, container, ifName, netns string) {
		_, gcErr := validAttachments(stdin)
		cnitest.MustBeOfTheSpecification(t, gcErr)
		config, err := parseConfig(stdin)
		cnitest.MustBeOfTheSpecification(t, err)
		if err != nil {
			return
		}
		if err := config.parsePrevResult(); err != nil {
			cnitest.MustBeOfTheSpecification(t, err)
			return
		}
		request, err := addRequest(config, &skel.CmdArgs{
			ContainerID: container, Netns: netns, IfName: ifName, Args: cniArgs, StdinData: stdin,
		})
		cnitest.MustBeOfTheSpecification(t, err)
		if err != nil {
			return
		}
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		if len(body) > cni.MaxRequestBytes {
			t.Errorf("a request of %d bytes", len(body))
		}
		var read cni.AddRequest
		if err := errors.Join(cni.DecodeRequest(body, &read), read.Validate()); err != nil {
			t.Errorf("the agent would refuse it: %v\n%s", err, body)
		}
		if len(stdin) > 0 && len(request.HostPorts) > cni.MaxHostPorts {
			t.Errorf("%d host ports", len(request.HostPorts))
		}
	})
}
