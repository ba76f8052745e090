package main

import (
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

// memoryShare of the container's memory limit is for the memory that Go manages. The rest is for
// the program's text, and for kernel memory that counts as the agent's, such as rules and messages.
const memoryShare = 0.8

// garbagePercent is how much garbage there may be before it is collected, in percent of what is in
// use. An agent keeps a lot of a large cluster and makes little garbage, so that Go's own 100 would
// cost a third more memory and save little work (docs/adr/0028-pods-without-a-cache.md).
const garbagePercent = 50

// limitGarbage sets garbagePercent. GOGC in the environment takes precedence.
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// setMemoryLimit makes the garbage collector work harder as the agent comes near its container's
// limit. A start needs more memory than later work, and an agent that was killed in a start would
// be killed in the next one. Without a limit nothing changes. GOMEMLIMIT in the environment takes
// precedence.
func setMemoryLimit(log logr.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare))
	if err != nil {
		log.Info("The container's memory limit isn't known", "reason", err.Error())
		return
	}
	log.V(1).Info("Memory is limited", "bytes", limit)
}
