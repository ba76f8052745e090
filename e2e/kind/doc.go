// Package kind makes real clusters of Docker containers, by the program kind
// (https://kind.sigs.k8s.io), for the suites in e2e/suite and for people who want one to play in.
//
// NodeImage finds the image that nodes run: the stock kindest/node where a registry can be reached,
// else one that is built here, once, from Debian's packages and Go modules, with the files that
// kind's own image is made with. Up makes a cluster without a pod network, loads images into it and
// installs Sluice by the manifest that users apply. Down removes it.
//
// It needs Docker, running; hack/docker sees to that. It isn't the lab, which needs neither
// containers nor a quarter of an hour.
package kind
