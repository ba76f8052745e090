package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/containernetworking/cni/pkg/types"
)

// Where a node's agent keeps its things, unless the configuration says otherwise.
const (
	DefaultStateDir = "/run/sluice"
	SocketName      = "cni.sock" // in the state directory
	DefaultSocket   = DefaultStateDir + "/" + SocketName
)

// ErrNoAgent is what a Client's error is where no agent that speaks this version of the protocol has answered.
var ErrNoAgent = errors.New("no answer from the node's agent")

// A Client asks the agent of this node. Its methods may be called concurrently.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the agent behind a unix socket. It connects anew for every request.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: http.Client{Transport: NewTransport(socket)}}
}

// NewTransport takes every request to a unix socket, whatever host it names. It connects anew for each.
func NewTransport(socket string) *http.Transport {
	dialer := net.Dialer{}
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}
}

// Call posts a request to a path of the protocol and decodes the answer. It waits as long as ctx lasts. Its error is ErrNoAgent, or the
// agent's own as a *types.Error of the CNI library.
func (c *Client) Call(ctx context.Context, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding a request for the agent: %w", err)
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making a request for the agent: %w", err)
	}
	post.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(post)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	if err != nil {
		return fmt.Errorf("%w: reading it from %s: %w", ErrNoAgent, c.socket, err)
	}
	if len(data) > maxAnswerBytes {
		return fmt.Errorf("%w: %s sent more than %d bytes", ErrNoAgent, c.socket, maxAnswerBytes)
	}
	if response.StatusCode != http.StatusOK {
		return c.refusal(response.StatusCode, data)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%w: %s sent %s", ErrNoAgent, c.socket, Quote(string(data)))
	}
	return nil
}

// refusal is the agent's error, or ErrNoAgent where what answered doesn't know the request at all.
func (c *Client) refusal(status int, body []byte) error {
	refusal := new(types.Error)
	if json.Unmarshal(body, refusal) != nil || refusal.Msg == "" {
		return fmt.Errorf("%w: %s sent HTTP status %d and %s", ErrNoAgent, c.socket, status, Quote(string(body)))
	}
	if status == http.StatusNotFound {
		return fmt.Errorf("%w: %w", ErrNoAgent, refusal)
	}
	return refusal
}
