// Package cnitest is what the tests of the rooms of package cni share: values, a fake of the
// agent's enforcement, an agent in a directory of its own, and a node with pods, made of network
// namespaces, on which the real plugin runs.
//
// It imports none of the rooms, so that their own tests can use it: a test hands over its server
// and its plugin.
package cnitest
