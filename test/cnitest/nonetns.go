package cnitest

import "github.com/containernetworking/plugins/pkg/ns"

// NoNetNS stands for a network namespace in which nothing is done, for a server that is to stay
// within the process and its state directory. Nothing goes wrong there either.
type NoNetNS struct{ ns.NetNS }

// Do leaves alone what it is to do.
func (NoNetNS) Do(func(ns.NetNS) error) error { return nil }
