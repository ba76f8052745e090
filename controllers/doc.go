// Package controllers is the part of the agent that knows Kubernetes: it passes what the API
// server's objects say on to package enforcer and to the pod network, and reports back by Events on
// objects.
//
// # Model
//
// Reconcilers are thin: each puts one object from the informers' caches into the Enforcer's model
// (see [Agent]). Pods come there as the API server streams them, and aren't cached: the model has
// what policy reads of them. [PodNetwork] passes what the pod network needs of Node objects and of
// net-conf.json to package overlay, and its outcome to the ruleset. [Datapath] passes that outcome
// to the CNI server and to files. Checks look at what others do to pods' packets
// ([ForwardingCheck], [TunnelCheck], [TrackingCheck]).
//
// Below it are rooms for Events (notify), for questions about policies (answers) and for the
// connections to the API server (apiguard).
//
// # Not for
//
// Package policy decides what a policy means, package ruleset what rules it becomes, and package
// enforcer when these are written, and what to do if they can't be.
package controllers
