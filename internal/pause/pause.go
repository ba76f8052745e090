// Package pause waits where there is no signal to wait for.
package pause

import (
	"context"
	"time"
)

// For waits so long, or until ctx ends.
func For(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
