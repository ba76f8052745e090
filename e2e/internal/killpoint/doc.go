// Package killpoint kills a process at a chosen one of its system calls, for tests of what is left
// when a program dies there.
//
// # Model
//
// A program is started by way of a Launcher, which puts a seccomp filter on itself and becomes the
// program. The filter asks this process about every system call that could change something that
// outlives the program (seccomp_unotify(2)). Attach answers: it reads from the call's arguments
// what the call would do, and either lets it go on or kills the program, so that the call is never
// made. Each such call is a kill point: between two of them nothing changes outside the program.
//
// Kill points are messages that change nftables, connection tracking, links, addresses, routes and
// neighbours; calls that change files, sysctls included; and answers on unix sockets, which let
// another program go on. Messages that only ask, and writes to TCP connections, pipes and a
// program's log, are none.
//
// The threads of a program run on while one is asked about, so which call is the n-th may differ
// from run to run.
//
// It isn't for programs that are to be kept from anything: a filter that reads arguments where the
// program can change them is no protection. It needs root and Linux 5.19.
package killpoint
