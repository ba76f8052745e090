package table

import (
	"time"

	"golang.org/x/sys/unix"
)

// settleTime is how long to wait where the kernel can't say when.
const settleTime = 20 * time.Millisecond

// settle waits until every packet has left that is under way now: they are judged within RCU read
// sections, and this system call waits for those that have begun (membarrier(2),
// MEMBARRIER_CMD_GLOBAL; some 10 ms). A kernel with nohz_full can't; a packet takes microseconds,
// so a pause does nearly as well.
func settle() {
	const global = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		<-time.After(settleTime)
	}
}
