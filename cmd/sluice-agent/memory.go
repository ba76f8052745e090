package main

import (
	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

// memoryShare of what the agent's container may have is for what Go manages; the rest is for the
// program's text and for the kernel's memory that counts as the agent's, such as rules and
// messages.
const memoryShare = 0.8

// heedMemoryLimit has garbage collected the harder, the nearer the agent comes to its container's
// limit. A start needs more than what comes after it, and an agent that was killed in one would be
// killed in the next. Without a limit nothing changes. GOMEMLIMIT in the environment goes before
// it.
func heedMemoryLimit(log logr.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare))
	if err != nil {
		log.Info("The container's memory limit isn't known", "reason", err.Error())
		return
	}
	log.V(1).Info("Memory is limited", "bytes", limit)
}
