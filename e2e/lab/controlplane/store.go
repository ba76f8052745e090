package controlplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// Put writes a value into etcd, past the API server, whose watchers hear of it all the same. Each
// call is a revision of its own, as the API server's writes are: of several that share one, its
// watchers miss some.
func (c *ControlPlane) Put(ctx context.Context, key string, value []byte) error {
	return c.askEtcd(ctx, "put", etcdRequest{Key: []byte(key), Value: value})
}

// Delete removes a key from etcd in the same way. One that isn't there is no error.
func (c *ControlPlane) Delete(ctx context.Context, key string) error {
	return c.askEtcd(ctx, "deleterange", etcdRequest{Key: []byte(key)})
}

// etcdRequest is etcd's PutRequest or DeleteRangeRequest, in the JSON of its gateway: bytes are in
// base64.
type etcdRequest struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value,omitempty"`
}

// askEtcd asks the gateway that etcd has for HTTP and JSON (etcd's documentation, "gRPC gateway"),
// so that no client of etcd's is needed.
func (c *ControlPlane) askEtcd(ctx context.Context, what string, r etcdRequest) error {
	client, err := c.etcdClient()
	if err != nil {
		return fmt.Errorf("making a client of etcd: %w", err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing a request to etcd: %w", err)
	}
	url := fmt.Sprintf("https://127.0.0.1:%d/v3/kv/%s", c.etcdPort, what)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("etcd: %s %s: %w", what, r.Key, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, answer)
	}
	if err != nil {
		return fmt.Errorf("etcd: %s %s: %w", what, r.Key, err)
	}
	return nil
}

func (c *ControlPlane) newEtcdClient() (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(c.file("etcd-client.crt"), c.file("etcd-client.key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(c.file("etcd-ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("etcd-ca.crt has no certificate")
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS13,
		},
		MaxIdleConnsPerHost: 8, // as many as a Lab uses at once
	}}, nil
}
