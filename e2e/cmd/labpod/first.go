package main

import (
	"time"

	"github.com/sluice-net/sluice/e2e/internal/podprogram"
	"github.com/sluice-net/sluice/test/probe"
)

const (
	firstConnectFor   = time.Second
	firstConnectEvery = 20 * time.Millisecond
)

// connectFirst starts a new connection every 20 ms for a second, until one succeeds: a gap of the
// pod's policy, however short and whenever in that second, lets one of them out.
func connectFirst(target podprogram.Target) *podprogram.FirstConnect {
	deadline := time.Now().Add(firstConnectFor)
	results := make(chan probe.Result, firstConnectFor/firstConnectEvery+1)
	tick := time.NewTicker(firstConnectEvery)
	defer tick.Stop()
	outcome := &podprogram.FirstConnect{}
	outstanding := 0
	start := func() {
		outcome.Attempts++
		outstanding++
		go func() {
			results <- probe.Connect(target.Protocol, target.Address,
				probe.WithTimeout(time.Until(deadline)))
		}()
	}
	start()
	for outstanding > 0 || time.Now().Before(deadline) {
		select {
		case result := <-results:
			outstanding--
			outcome.Result = result.String()
			if result.OK {
				outcome.OK = true
				return outcome
			}
		case <-tick.C:
			if time.Now().Before(deadline) {
				start()
			}
		}
	}
	return outcome
}
