// Package controllers is the part of the agent that knows Kubernetes: it carries what the API
// server's objects say to package enforcer and to the pod network, and puts what there is to tell
// on objects, as Events.
//
// # Model
//
// Reconcilers are thin: each carries one object from the informers' caches into the Enforcer's
// model (see [Agent]). What the pod network needs of Node objects and of net-conf.json goes to
// package overlay ([PodNetwork]); what came of that, to the ruleset, to the CNI server and to files
// ([Datapath]). Beside these, checks look at what others do to pods' packets ([ForwardCheck],
// [TunnelCheck], [TrackingCheck]).
//
// Below it are rooms for Events (notify), for questions about policies (answers) and for the
// connections to the API server (apiguard).
//
// # Not for
//
// What a policy means is decided in package policy; what becomes of it in the ruleset, in package
// ruleset; when it is written, and what if it can't be, in package enforcer.
package controllers
