package kind

import (
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/e2e/assets"
)

func options(change func(*Options)) Options {
	o := Options{Name: "c", Family: IPv4, Proxy: NFTables, Workers: 2}
	change(&o)
	return o
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options Options
		image   Image
		has     []string
		hasnt   string
	}{
		{
			name: "stock", options: options(func(*Options) {}),
			image: Image{Name: "kindest/node:v1", Stock: true},
			has: []string{"kubeProxyMode: nftables", "ipFamily: ipv4",
				"podSubnet: 10.244.0.0/16\n", `name: node-cidr-mask-size, value: "25"`},
			hasnt: "failCgroupV1",
		},
		{
			name: "built", options: options(func(o *Options) {
				o.Family, o.Proxy = Dual, IPTables
			}), image: Image{Name: "built:v1"},
			has: []string{
				"failCgroupV1: false", "podSubnet: 10.244.0.0/16,fd00:10:244::/56\n",
				"kubeProxyMode: iptables",
				`name: node-cidr-mask-size-ipv4, value: "25"`,
				`name: node-cidr-mask-size-ipv6, value: "64"`,
			},
			hasnt: "node-cidr-mask-size,",
		},
		{
			name: "ipv6", options: options(func(o *Options) { o.Family = IPv6 }),
			image: Image{Name: "built:v1"},
			has:   []string{"ipFamily: ipv6", `name: node-cidr-mask-size, value: "64"`},
			hasnt: "10.244",
		},
	} {
		text := test.options.config(test.image)
		var parsed struct {
			Nodes []struct{ Role, Image string } `json:"nodes"`
		}
		err := yaml.Unmarshal([]byte(text), &parsed)
		if err != nil || len(parsed.Nodes) != 3 || parsed.Nodes[2].Image != test.image.Name {
			t.Errorf("%s: %v, nodes %+v", test.name, err, parsed.Nodes)
		}
		for _, part := range test.has {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %q in\n%s", test.name, part, text)
			}
		}
		if strings.Contains(text, test.hasnt) {
			t.Errorf("%s: %q in\n%s", test.name, test.hasnt, text)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]Options{
		`family "ipv5"`:                options(func(o *Options) { o.Family = "ipv5" }),
		`mode of kube-proxy "ipvs"`:    options(func(o *Options) { o.Proxy = "ipvs" }),
		"0 workers: expected at least": options(func(o *Options) { o.Workers = 0 }),
	} {
		if err := o.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := options(func(*Options) {}).check(); err != nil {
		t.Error(err)
	}
}

// The manifest that users apply has the network's configuration in the one form that replaceNetConf
// knows.
func TestReplaceNetConf(t *testing.T) {
	t.Parallel()
	file, err := assets.File("dist", "install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	conf := options(func(o *Options) { o.Family = IPv6 }).netConf()
	replaced, err := replaceNetConf(manifest, conf)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for document := range strings.SplitSeq(string(replaced), "\n---\n") {
		var object struct {
			Kind string
			Data map[string]string
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if object.Kind == "ConfigMap" {
			found = true
			if got := strings.TrimSpace(object.Data["net-conf.json"]); got != conf {
				t.Errorf("got %s, want %s", got, conf)
			}
		}
	}
	if !found ||
		strings.Count(string(replaced), "kind: ") != strings.Count(string(manifest), "kind: ") {
		t.Error("a document was lost")
	}
	if _, err := replaceNetConf([]byte("kind: Pod\n"), conf); err == nil {
		t.Error("a manifest without a configuration was taken")
	}
}

func TestComponents(t *testing.T) {
	t.Parallel()
	for image, want := range map[string]string{
		"example/kube-proxy:v1.36.3":       "kube-proxy /usr/local/bin/kube-proxy",
		"example/coredns/coredns:v1.14.2":  "coredns /coredns",
		"host.example:5000/a/pause:3.10.2": "pause /pause",
	} {
		name := componentOf(image)
		if got := name + " " + componentPath(name); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestSetSandboxImage(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/config.toml"
	if err := os.WriteFile(file, []byte("[a]\n  sandbox_image = \"old\"\n  x = 1\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := setSandboxImage(file, "new:1"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil ||
		string(got) != "[a]\n  sandbox_image = \"new:1\"\n  x = 1\n" {
		t.Errorf("got %q (%v)", got, err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := setSandboxImage(file, "new:1"); err == nil {
		t.Error("a configuration without that line was taken")
	}
}
