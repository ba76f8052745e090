// Package kubelet stands in for a node's kubelet and container runtime. It starts the pods that are
// bound to the node with the CNI configuration that it finds there and real CNI plugins, and in
// each one program that serves every containerPort in the place of the pod's containers. It probes
// readiness, reports the status of pods and of the node's network, and deletes.
//
// It knows nothing of images, volumes or resources, and restarts what has ended only after a reboot
// of its node.
package kubelet
