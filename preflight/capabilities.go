package preflight

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func checkCapabilities(Options) Result {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return warned("run this where /proc is mounted", "capabilities can't be read: %v", err)
	}
	return judgeCapabilities(string(status))
}

// judgeCapabilities looks at what a thread may do now, by its status in /proc.
func judgeCapabilities(status string) Result {
	const remedy = "run this as root, and give the agent's container both (the manifests do)"
	for line := range strings.Lines(status) {
		text, found := strings.CutPrefix(line, "CapEff:")
		if !found {
			continue
		}
		has, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			break
		}
		var lacks []string
		for _, c := range []struct {
			name string
			bit  uint
		}{{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_NET_RAW", unix.CAP_NET_RAW}} {
			if has&(1<<c.bit) == 0 {
				lacks = append(lacks, c.name)
			}
		}
		if len(lacks) > 0 {
			return failed(remedy, "without %s", strings.Join(lacks, " and "))
		}
		return passed("CAP_NET_ADMIN and CAP_NET_RAW")
	}
	return warned(remedy, "/proc doesn't say which there are")
}
