package main

import (
	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

// memoryShare of the container's memory limit is for the memory that Go manages. The rest is for
// the program's text, and for kernel memory that counts as the agent's, such as rules and messages.
const memoryShare = 0.8

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
