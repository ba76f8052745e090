// Package enforce tests Sluice from the API object to the packet, in labs: a real API server, the
// real agent and plugin on every node, real connections.
//
// It has no code of its own, only tests. What a NetworkPolicy means is in test/cases; here the same
// cases run where the objects come from an API server, and the pods' addresses from the plugin.
package enforce
