package analysis

// Outcomes are successes and failures that somebody reported of a version.
type Outcomes struct {
	Success, Failure uint64
}

func (o Outcomes) rate() Rate {
	return Rate{Requests: o.Success + o.Failure, Bad: o.Failure}
}

// A Report is what was reported of both versions in one stretch of time, in one
// step. Nobody knows whose outcomes they were, so each speaks for itself.
//
// Given how many outcomes a report has of each version and how many of all are
// failures, the canary's failures are a draw without replacement when it is as
// good as stable. So the shares of this report's own outcomes stand in for the
// weights, and the evidence stays valid however unevenly the versions report.
// It needs short stretches: in a long one the rate drifts, and shares do, too.
type Report struct {
	Step           int // from 1
	Canary, Stable Outcomes
}

// ReportedEvents turns reports into a table of events.
func ReportedEvents(reports []Report) []Events {
	events := make([]Events, 0, len(reports))
	for _, r := range reports {
		w, ok := reportedWeights(r)
		if !ok {
			continue
		}
		events = append(events, Events{Weights: w, Step: r.Step, Canary: r.Canary.Failure, Stable: r.Stable.Failure})
	}
	return events
}

// reportedWeights are the outcomes of both versions. More than a uint32 are
// halved until they fit: their ratio is all that counts.
func reportedWeights(r Report) (Weights, bool) {
	c, s := r.Canary.rate().Requests, r.Stable.rate().Requests
	for max(c, s) >= 1<<32 {
		c, s = c/2, s/2
	}
	return Weights{Canary: uint32(c), Stable: uint32(s)}, c > 0 && s > 0
}

// reported sums up the reports by version.
func reported(reports []Report) (canary, stable Rate) {
	var c, s Outcomes
	for _, r := range reports {
		c.Success += r.Canary.Success
		c.Failure += r.Canary.Failure
		s.Success += r.Stable.Success
		s.Failure += r.Stable.Failure
	}
	return c.rate(), s.rate()
}
