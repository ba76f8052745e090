package enforcer

import "time"

// failing is a series of commits that fail. It belongs to the goroutine that commits.
type failing struct {
	tries    int
	reported string // the last cause that was reported
}

// patientTries is how many commits may fail in a row before an Event reports it: after another
// program's change to the table, the second try succeeds.
const patientTries = 3

// noteFailure reports why the ruleset can't be written: each cause once.
func (e *Enforcer) noteFailure(err error, retry time.Duration) {
	e.opts.Metrics.applyErrors.Inc()
	f := &e.failing
	f.tries++
	news := err.Error() != f.reported
	if f.reported = err.Error(); news {
		e.opts.Log.Error(err, "Writing the ruleset failed; trying again, the longer the less often",
			"after", retry.String())
	}
	if f.tries == patientTries || news && f.tries > patientTries {
		e.opts.Warn("RulesetNotWritten", "the ruleset can't be written, so that new pods don't "+
			"start and changes of policy wait: "+err.Error())
	}
}

// noteSuccess ends a series.
func (e *Enforcer) noteSuccess() {
	if e.failing.tries == 0 {
		return
	}
	e.opts.Log.Info("The ruleset is written again", "tries", e.failing.tries+1)
	if e.failing.tries >= patientTries {
		e.opts.Say("RulesetWritten", "the ruleset is written again")
	}
	e.failing = failing{}
}
