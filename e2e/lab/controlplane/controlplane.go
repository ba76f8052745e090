package controlplane

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/sluice-net/sluice/e2e/assets"
	"github.com/sluice-net/sluice/e2e/lab/process"
	"github.com/sluice-net/sluice/e2e/lab/wait"
)

// ControlPlane is an etcd and an API server on 127.0.0.1, at ports that were free.
type ControlPlane struct {
	spawner  *process.Spawner
	files    assets.Control
	dir      string
	services []string   // the ranges of Services' addresses
	ca       *authority // of the API server and its clients
	admin    keyPair

	etcdPort, apiPort int
	etcd, api         *process.Process
	etcdClient        func() (*http.Client, error)
}

// New returns one whose files are in a folder that it makes. Nothing runs before StartEtcd and
// StartAPIServer.
func New(
	spawner *process.Spawner, files assets.Control, dir string, services []string,
) (*ControlPlane, error) {
	c := &ControlPlane{spawner: spawner, files: files, dir: dir, services: services}
	c.etcdClient = sync.OnceValues(c.newEtcdClient)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := c.makeCerts(); err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	var err error
	c.etcdPort, c.apiPort, err = freePorts()
	return c, err
}

// file is a path in the control plane's folder.
func (c *ControlPlane) file(name string) string { return filepath.Join(c.dir, name) }

// makeCerts writes two authorities, so that a client of the API server is none of etcd, and a pair
// for everyone.
func (c *ControlPlane) makeCerts() error {
	etcdCA, err := newAuthority("sluice-lab-etcd")
	if err != nil {
		return err
	}
	if c.ca, err = newAuthority("sluice-lab"); err != nil {
		return err
	}
	pairs := []struct {
		authority *authority
		file      string
		subject   pkix.Name
	}{
		{etcdCA, "etcd", pkix.Name{CommonName: "etcd"}},
		{etcdCA, "etcd-client", pkix.Name{CommonName: "kube-apiserver"}},
		{c.ca, "apiserver", pkix.Name{CommonName: "kube-apiserver"}},
		{c.ca, "serviceaccounts", pkix.Name{CommonName: "serviceaccounts"}}, // signs tokens
	}
	for _, p := range pairs {
		pair, err := p.authority.issue(p.subject)
		if err != nil {
			return err
		}
		if err := pair.write(c.file(p.file)); err != nil {
			return err
		}
	}
	c.admin, err = c.ca.issue(
		pkix.Name{CommonName: "lab-admin", Organization: []string{"system:masters"}},
	)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.file("etcd-ca.crt"), etcdCA.pem, 0o600); err != nil {
		return err
	}
	return os.WriteFile(c.file("ca.crt"), c.ca.pem, 0o600)
}

// freePorts asks the kernel for two TCP ports that nobody has.
func freePorts() (first, second int, err error) {
	ports := [2]int{}
	for i := range ports {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, 0, fmt.Errorf("looking for a free port: %w", err)
		}
		defer func() { _ = listener.Close() }() // not before both are known
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], nil
}

// StartEtcd starts etcd. It may not be ready when this returns; the API server waits for it.
func (c *ControlPlane) StartEtcd() error {
	url := fmt.Sprintf("https://127.0.0.1:%d", c.etcdPort)
	etcd, err := c.spawner.Start(process.Program{
		Name: "etcd",
		Path: c.files.Etcd,
		Log:  c.file("etcd.log"),
		Args: []string{
			"--data-dir=" + c.file("etcd"),
			"--unsafe-no-fsync",                // a lab's data needn't outlive the machine
			"--quota-backend-bytes=8589934592", // 8 GiB: a large cluster with its history
			"--listen-client-urls=" + url,
			"--advertise-client-urls=" + url,
			"--cert-file=" + c.file("etcd.crt"),
			"--key-file=" + c.file("etcd.key"),
			"--trusted-ca-file=" + c.file("etcd-ca.crt"),
			"--client-cert-auth",
			"--listen-peer-urls=unixs://" + c.file("etcd-peer.sock"), // no peers
			"--initial-advertise-peer-urls=https://127.0.0.1:2380",
			"--initial-cluster=default=https://127.0.0.1:2380",
			"--peer-cert-file=" + c.file("etcd.crt"),
			"--peer-key-file=" + c.file("etcd.key"),
			"--peer-trusted-ca-file=" + c.file("etcd-ca.crt"),
			"--peer-client-cert-auth",
			"--log-level=warn",
		},
	})
	c.etcd = etcd
	return err
}

// StartAPIServer starts the API server, at the same port and with the same data each time. It isn't
// ready when this returns.
func (c *ControlPlane) StartAPIServer() error {
	api, err := c.spawner.Start(process.Program{
		Name: "kube-apiserver",
		Path: c.files.APIServer,
		Log:  c.file("apiserver.log"),
		Args: []string{
			fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", c.etcdPort),
			"--etcd-cafile=" + c.file("etcd-ca.crt"),
			"--etcd-certfile=" + c.file("etcd-client.crt"),
			"--etcd-keyfile=" + c.file("etcd-client.key"),
			"--bind-address=127.0.0.1",
			fmt.Sprintf("--secure-port=%d", c.apiPort),
			"--advertise-address=127.0.0.1",
			"--endpoint-reconciler-type=none",
			"--tls-cert-file=" + c.file("apiserver.crt"),
			"--tls-private-key-file=" + c.file("apiserver.key"),
			"--client-ca-file=" + c.file("ca.crt"),
			"--authorization-mode=RBAC",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + c.file("serviceaccounts.key"),
			"--service-account-signing-key-file=" + c.file("serviceaccounts.key"),
			"--service-cluster-ip-range=" + strings.Join(c.services, ","),
			// nobody makes the accounts that it waits for
			"--disable-admission-plugins=ServiceAccount",
			"--allow-privileged",
			"--profiling=false",
		},
	})
	c.api = api
	return err
}

// WaitReady waits until the API server says that it is ready.
func (c *ControlPlane) WaitReady(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.restConfig())
	if err != nil {
		return fmt.Errorf("making a client of the API server: %w", err)
	}
	defer client.CloseIdleConnections()
	return wait.Until(ctx, wait.ReadyTimeout, "the API server being ready", func() (bool, error) {
		for _, process := range []*process.Process{c.etcd, c.api} {
			if !process.Running() {
				return false, process.Failure()
			}
		}
		return wait.AnswersOK(ctx, client, c.url()+"/readyz"), nil
	})
}

func (c *ControlPlane) url() string { return "https://" + c.Address() }

// restConfig is the administrator's access. Requests aren't throttled.
func (c *ControlPlane) restConfig() *rest.Config {
	return &rest.Config{
		Host: c.url(),
		QPS:  -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.ca.pem, CertData: c.admin.cert, KeyData: c.admin.key,
		},
	}
}

// Address is that of the API server.
func (c *ControlPlane) Address() string { return fmt.Sprintf("127.0.0.1:%d", c.apiPort) }

// StopAPIServer kills the API server. Its data stays.
func (c *ControlPlane) StopAPIServer() { c.api.Kill() }

// WriteAdminKubeconfig writes the administrator's access.
func (c *ControlPlane) WriteAdminKubeconfig(file, lab string) error {
	return writeKubeconfig(file, lab, c.url(), c.ca.pem, c.admin)
}

// WriteKubeconfig writes the access of a user whose connections go to another address.
func (c *ControlPlane) WriteKubeconfig(file, lab, address string, user pkix.Name) error {
	pair, err := c.ca.issue(user)
	if err != nil {
		return fmt.Errorf("issuing a certificate to %s: %w", user.CommonName, err)
	}
	return writeKubeconfig(file, lab, "https://"+address, c.ca.pem, pair)
}
