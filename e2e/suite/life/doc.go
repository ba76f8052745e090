// Package life holds the specs about what happens to a cluster in its life: agents die and are
// replaced, nodes fill up, are drained and restarted, the API server is away, pods come and go
// while policies change, and in the end Sluice is taken off.
//
// The model: traffic that is allowed and traffic that is denied goes on all the while, by pods that
// write down what isn't as it should be (watcher), and so do Nodes and EndpointSlices, by informers
// (record). A spec does its damage, and then judges the whole time, not only its end: nothing
// denied has passed, nothing allowed has failed, no node has left Ready, no endpoint its Service.
//
// All specs are disruptive: no other suite can run at the same time. Those labelled "uninstall"
// take Sluice off the cluster and put it back; they run only where the label filter names them.
package life
