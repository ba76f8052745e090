package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestEvery: it calls after each interval, not at once, and ends with its context.
func TestEvery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const interval = 10 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 3*interval+time.Second)
		defer cancel()
		began := time.Now()
		var calls []time.Duration
		call := func(context.Context) { calls = append(calls, time.Since(began)) }
		err := every(interval, call)(ctx)
		if err != nil || len(calls) != 3 || calls[0] != interval || calls[2] != 3*interval {
			t.Errorf("called after %v, and it ended with %v", calls, err)
		}
	})
}
