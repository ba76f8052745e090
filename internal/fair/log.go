package fair

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// Log logs what somebody else causes, a namespace's policies or another node, unless that one has
// caused too much of late: so nobody fills the log, or crowds out what is said of others. It may be
// used from several goroutines.
type Log struct {
	mu      sync.Mutex
	budgets lineBudgets
}

// Info logs a line of a source. One that had to leave lines out before says how many.
func (f *Log) Info(log logr.Logger, source, message string, keysAndValues ...any) {
	f.mu.Lock()
	if f.budgets == nil {
		f.budgets = lineBudgets{}
	}
	leftOut, ok := f.budgets.take(time.Now(), source)
	f.mu.Unlock()
	if !ok {
		return
	}
	if leftOut > 0 {
		keysAndValues = append(keysAndValues, "leftOutBefore", leftOut)
	}
	log.Info(message, keysAndValues...)
}
