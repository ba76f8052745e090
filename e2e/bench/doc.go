// Package bench measures what the pod network costs next to what others would pay, in the same run
// and on the same machine.
//
//	BenchmarkNetwork...    between pods of two nodes, by backend: of the bare underlay, and of a
//	                       VXLAN made by hand
//	BenchmarkPath...       the same way without one part of the ruleset, by CPU
//	BenchmarkPieces        what one chain or rule costs a packet that it doesn't concern
//	BenchmarkPlugin...     ADD and DEL through libcni, of ours and of the CNI project's ptp and
//	                       bridge
//	BenchmarkNodeToRoute   from a Node object to the first answer of a pod there
//	BenchmarkAgentMemory   the agent's, alone and with 1,000 nodes and 10,000 pods; only with
//	                       SLUICE_LONG=1
//	BenchmarkFanout        what a change of a pod or a Node costs an API server with up to 1,000
//	                       agents; only with SLUICE_LONG=1
//	BenchmarkScale         one agent among 5,000 nodes and 150,000 pods; only by make bench-scale
//	BenchmarkPeers...      of real flannel and kube-router: packets, policies, memory; only by
//	                       make bench-peers
//
// # Model
//
// Machines are noisy, more so from second to second than within one. So everything that is compared
// is there from the start, and is measured in short rounds: each variant once, beginning with
// another one each time. A ratio is the median of the rounds' ratios, not the ratio of two medians.
// Units that begin with "of-" are such ratios.
//
// What is counted by CPU-s, and what ends in -CPU, is by the time on a CPU: there, others' load on
// the machine hardly shows.
//
// A benchmark does all of its rounds before its first sub-benchmark; these only report. -benchtime
// and -count therefore change nothing. With SLUICE_LONG=1 there are more and longer rounds.
//
// Nodes, pods and the cable between nodes are network namespaces and veths, so what is compared is
// the price of a packet in the kernel, where nothing waits for a wire. On real networks the shares
// are smaller.
//
// It is not for absolute figures, and it fails on nothing but what doesn't work at all: aims are
// for people who read it. It has no code of its own, only benchmarks. Without root they are
// skipped.
package bench
