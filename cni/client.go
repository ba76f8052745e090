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
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// The default paths of a node's agent.
const (
	DefaultStateDir = "/run/sluice"
	SocketName      = "cni.sock" // in the state directory
	DefaultSocket   = DefaultStateDir + "/" + SocketName
)

// ErrNoAgent is a Client's error where no agent answered that speaks this version of the protocol.
var ErrNoAgent = errors.New("no answer from the node's agent")

// A Client asks the agent of this node, for the plugin and for sluice-agent's commands. It connects
// anew for every request. Its methods may be called concurrently.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the agent behind a unix socket.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, socket)
		},
	}}}
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", socket)
}

// IsAnswered reports whether a process listens on a unix socket.
func IsAnswered(ctx context.Context, socket string) bool {
	conn, err := dial(ctx, socket)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was said
	return true
}

// Call posts a request to a path of the protocol and decodes the answer. It waits as long as ctx
// lasts. Its error is ErrNoAgent, or the agent's own as a *types.Error of the CNI library.
func (c *Client) Call(ctx context.Context, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding a request for the agent: %w", err)
	}
	status, data, err := c.Do(ctx, http.MethodPost, path, body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	if status != http.StatusOK {
		return c.refusal(status, data)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%w: %s sent %s", ErrNoAgent, c.socket, Quote(string(data)))
	}
	return nil
}

// Get asks for a path, with its query, that the agent has added to the protocol, and decodes the
// answer. It waits as long as ctx lasts. An answer other than 200 is an error in the agent's words.
func (c *Client) Get(ctx context.Context, path string, answer any) error {
	status, data, err := c.Do(ctx, http.MethodGet, path, nil)
	if err == nil && status != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(data)))
	}
	if err != nil {
		return fmt.Errorf("asking the agent at %s: %w", c.socket, err)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("reading the answer of the agent at %s: %w", c.socket, err)
	}
	return nil
}

// Do sends a request with a body of JSON, or without one, and reads the answer, of at most 4 MiB,
// with any status.
func (c *Client) Do(
	ctx context.Context, method, path string, body []byte,
) (status int, data []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path,
		bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("making a request for the agent: %w", err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	data, err = io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	if err != nil {
		return 0, nil, fmt.Errorf("reading it from %s: %w", c.socket, err)
	}
	if len(data) > maxAnswerBytes {
		return 0, nil, fmt.Errorf("%s sent more than %d bytes", c.socket, maxAnswerBytes)
	}
	return response.StatusCode, data, nil
}

// refusal is the agent's error, or ErrNoAgent where the answering process doesn't know the request.
func (c *Client) refusal(status int, body []byte) error {
	refusal := new(types.Error)
	if json.Unmarshal(body, refusal) != nil || refusal.Msg == "" {
		return fmt.Errorf("%w: %s sent HTTP status %d and %s", ErrNoAgent, c.socket, status,
			Quote(string(body)))
	}
	if status == http.StatusNotFound {
		return fmt.Errorf("%w: %w", ErrNoAgent, refusal)
	}
	return refusal
}
