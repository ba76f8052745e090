package controllers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/sluice-net/sluice/controllers/notify"
)

// TrackingCheck reports when the node's connection tracking has no room left: the kernel then drops
// packets that would begin a connection, even if policies allow them. Tracked connections go on.
type TrackingCheck struct {
	SysctlDir string
	Events    notify.NodeEvents
	Metrics   *Metrics // may be nil
	Log       logr.Logger

	full bool // as it was reported
}

// Run looks every ten seconds until ctx ends.
func (c *TrackingCheck) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		c.look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look reports what has changed since the last time. Where nothing is tracked there is nothing to
// report.
func (c *TrackingCheck) look() {
	count, err := c.number("nf_conntrack_count")
	if err != nil {
		return
	}
	limit, err := c.number("nf_conntrack_max")
	if err != nil || limit == 0 { // 0: there is none
		return
	}
	c.Metrics.noteTracking(count, limit)
	full := isTrackingFull(count, limit, c.full)
	if full == c.full {
		return
	}
	c.full = full
	if !full {
		c.Log.Info("Connection tracking has room again", "connections", count, "max", limit)
		c.Events.Say("ConntrackHasRoom",
			fmt.Sprintf("connection tracking has room again: %d of %d", count, limit))
		return
	}
	c.Log.Info("Connection tracking is full: packets that would begin a connection are dropped",
		"connections", count, "max", limit)
	c.Events.Warn("ConntrackFull", fmt.Sprintf("connection tracking has %d of %d connections: "+
		"packets that would begin another one are dropped, even if policies allow it; "+
		"see which addresses have so many (conntrack -L), or raise "+
		"net.netfilter.nf_conntrack_max", count, limit))
}

// isTrackingFull is true from 99 % on, as a full table is below its limit from time to time, and
// until a tenth is free.
func isTrackingFull(count, limit int, was bool) bool {
	if was {
		return count > limit-limit/10
	}
	return count >= limit-limit/100
}

func (c *TrackingCheck) number(name string) (int, error) {
	text, err := os.ReadFile(filepath.Join(c.SysctlDir, "netfilter", name))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
