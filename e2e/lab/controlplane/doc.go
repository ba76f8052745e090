// Package controlplane runs an etcd and a kube-apiserver on 127.0.0.1, with certificates of their
// own, and writes kubeconfigs for their users.
package controlplane
