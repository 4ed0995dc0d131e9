package analysis

import "fmt"

// knownEnough is the share of the outcomes of due requests that must be known
// before a step ends: those that hang are the ones that matter.
const knownEnough = 0.99

// waiting says why the step may not end, for a person to read.
func (j *judge) waiting(findings []Finding, loud []string) []string {
	if j.Canary.Requests == 0 {
		return []string{noRequest}
	}
	var why []string
	if j.StepRequests < j.MinRequests {
		why = append(why, fmt.Sprintf("%s of %s requests of the canary in this step",
			thousands(j.StepRequests), thousands(j.MinRequests)))
	}
	if j.log >= logSuspect {
		why = append(why, fmt.Sprintf("evidence %s against the canary, a step ends below 10", evidence(j.log)))
	}
	why = append(why, loud...)
	if float64(j.Known) < knownEnough*float64(j.Due) {
		why = append(why, fmt.Sprintf("%s of %s outcomes are known, a step ends with 99 %%",
			thousands(j.Known), thousands(j.Due)))
	}
	if tail, ok := j.impact(); !ok {
		why = append(why, fmt.Sprintf("may still hide: up to %s errors%s", percent(j.Canary.mayHide()), tail))
	}
	for i, c := range j.Checks {
		// What a comparison of errors waits for has been said.
		if f := findings[i]; f.Verdict != Pass && (c.Kind != CompareErrors || f.Verdict == NoData) {
			why = append(why, f.String())
		}
	}
	return why
}

// impact tells whether no more than maxImpact could go wrong in the next step,
// and what could if not: (U − stable's rate)·next weight.
func (j *judge) impact() (string, bool) {
	impact := (j.Canary.mayHide() - j.Stable.Share()) * j.NextWeight
	if impact <= j.MaxImpact {
		return "", true
	}
	return fmt.Sprintf(", so %s of all requests at %s, more than maxImpact %s",
		percent(impact), percent(j.NextWeight), percent(j.MaxImpact)), false
}

// sampleRatio is the finding on how new clients were split, none without any,
// and the reason to wait when it is loud.
func (j *judge) sampleRatio() (Finding, string) {
	var canary, all, expected float64
	for _, a := range j.Arrivals {
		if share, ok := a.Weights.share(); ok {
			n := float64(a.Canary + a.Stable)
			canary += float64(a.Canary)
			all += n
			expected += n * share
		}
	}
	if all == 0 {
		return Finding{}, ""
	}
	log := SampleRatioLog(j.Arrivals)
	f := Finding{
		Check: "sample-ratio", Verdict: Pass, Evidence: EValue(log), MayHide: -1,
		Reason: fmt.Sprintf("the canary got %s of %s new clients, %s were asked for; evidence %s",
			percent(canary/all), thousands(uint64(all)), percent(expected/all), evidence(log)),
	}
	if EValue(log) < ratioLoud {
		return f, ""
	}
	f.Verdict = Inconclusive
	f.Reason += " ≥ 1,000: counts of the versions cannot be compared"
	return f, f.String()
}
