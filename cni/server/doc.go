// Package server is the agent's side of CNI: what plugins ask at a unix socket on the node.
//
// # Model
//
// A [Server] knows what is attached. ADD takes addresses and host ports, writes a record, and has
// an [Enforcer] put the pod's policy into the kernel before it answers; DEL sets the link down,
// answers, and does the rest behind the answer, which only an ADD waits for that needs what the pod
// had. Each attachment has a lock: one request about it at a time.
//
// The files in the state directory outlive the process, each replaced as a whole. They are the
// truth about what is attached: a server starts with them, and drops an attachment whose file is
// gone. Beside them are the addresses that were given last and cool down (the ledger), and how the
// agent is (the heartbeat). A directory that can't be written keeps new pods out, and nobody else;
// it is reported once, and tried again at each beat.
//
// As runtimes lose a DEL now and then, the reaper looks for pods that are gone; in doubt, a pod
// lives. The host ends of the pods' links are kept as they should be by a podlink.Keeper.
//
// Who holds the server's mu waits for no disk.
//
// # What it is not for
//
// It decides nothing about policy, and knows no Kubernetes client: ranges of addresses, the node's
// own addresses and the MTU are set by its caller.
package server
