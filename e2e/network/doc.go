// Package network tests the pod network as its user has it: real agents on the nodes of labs make
// it from the objects of a real API server, and pods talk across it.
//
// Packets must look as the configuration says on every cable, with any families and backend; what
// is deleted or altered by hand must heal within two seconds; nodes come, go and change; the
// configuration changes under connections that last. Every test that demands silence has shown
// before that the same packets arrive.
//
// What it tests is in other packages, overlay and cni first of all, which have tests of their own.
// Pods that others wire are the subject of package foreign.
package network
