// Package pause waits where nothing tells when to go on.
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
