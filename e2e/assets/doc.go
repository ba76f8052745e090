// Package assets finds or makes the programs that a lab runs, and those that kind's nodes are made
// of where their image can't be pulled.
//
// ControlPlane: etcd, kube-apiserver and, where it is to be had, kubectl. They come from the folder
// $KUBEBUILDER_ASSETS if that is set, else from the cache of an earlier time, else from
// setup-envtest where the internet is reachable, else they are built from their Go modules, at the
// versions that go.mod in etcd and kubernetes beside this package name. Wiring: this repository's
// own programs, and the CNI project's plugins for a lab without them, built at every call, which
// costs a fraction of a second when nothing has changed. Foreign: the plugins of other projects'
// networks, at the versions of plugins and multus. PeerAgents: other projects' node agents, for
// benchmarks. NodePrograms: Kubernetes, etcd, containerd and CoreDNS.
//
// Everything is kept in the user's cache folder. What takes long says so, with a line every few
// seconds.
package assets
