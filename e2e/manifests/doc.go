// Package manifests tests what users apply, as text: no cluster is needed.
//
// The kustomizations in config/ are the source. The Helm chart has to render the same objects,
// field by field, with values that say the same; dist/ has to be what they render now. What the
// containers may do is held to a list here, so that a wider one is a change of a test. Every check
// is itself tried on objects that it has to refuse.
//
// Whether the agent then works is the subject of the suites that need a cluster.
package manifests
