// Package install holds the specs that say what an installation is: every node Ready with an agent
// that is, an agent with exactly the permissions that its manifest asks for, and the things that
// every cluster is used for at once: names, kubectl exec, logs and port-forward.
//
// What packets do is in suite network, what policies do in suite policy. Whether uninstalling
// leaves something is in suite life.
package install
