package fair

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// Log logs what a source causes (a namespace's policies, another node), unless that source has
// caused too much lately. So no source fills the log, or crowds out lines about others. It may be
// used from several goroutines.
type Log struct {
	mu      sync.Mutex
	budgets lineBudgets
}

// Info logs a line of a source, with the number of lines that were left out before it, if there are
// any.
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
