// Package proxy stands between a node's agent and the API server, and takes the connection away,
// holds it or makes it slow.
package proxy
