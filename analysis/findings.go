package analysis

import (
	"fmt"
	"math"
)

// String is the finding as a line: worse-than-stable: fail: 7 of 1,204 …
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s", f.Check, f.Verdict, f.Reason)
}

// find is a check's finding; own is its evidence.
func (j *judge) find(c Check, own Evidence) Finding {
	d := j.ByCheck[c.Name]
	var f Finding
	switch c.Kind {
	case CompareErrors:
		f = j.compare(own, j.Canary, j.Stable, words{bad: "failed", noun: "errors"})
		if why, ok := j.impact(); !ok && f.Verdict == Pass {
			f.Verdict = Inconclusive
			f.Reason += why
		}
		f.Reason += j.fewClients(f)
	case CompareLatency:
		f = j.compareLatency(own, d)
		f.Reason += j.fewClients(f)
	case CompareReports:
		canary, stable := reported(d.Reports)
		f = j.compare(own, canary, stable, words{bad: "were reported as failures", noun: "failures"})
	case MaxErrors:
		f = j.limited(own, c, j.Canary, d.Window, words{bad: "failed", noun: "errors"})
	case MaxSlow:
		f = j.limited(own, c, d.Canary, d.Window, words{bad: "took more than " + took(c.Bound), noun: "slow requests"})
	case Metric:
		f = withinBounds(c, d.Samples, d.Said)
	case Kayenta:
		f = likeKayenta(c, d.Metrics)
	}
	f.Check = c.Name
	if c.Kind.statistical() {
		f.Evidence = EValue(own.Log)
	} else {
		f.MayHide = -1
	}
	return f
}

// words are how a kind of check speaks of what is bad.
type words struct {
	bad    string // … canary requests failed
	stable string // … of stable above 52 ms
	noun   string // may still hide: up to 3.3 % errors
}

const noRequest = "no request of the canary yet"

// compare is the finding of a comparison with stable.
func (j *judge) compare(own Evidence, canary, stable Rate, w words) Finding {
	f := Finding{Verdict: NoData, MayHide: canary.mayHide()}
	switch {
	case canary.Requests == 0:
		f.Reason = noRequest
		return f
	case stable.Requests == 0:
		f.Reason = fmt.Sprintf("%s of %s canary requests %s%s, none of stable to compare with",
			thousands(canary.Bad), thousands(canary.Requests), w.bad, worst(canary, j.unit()))
		return f
	}
	f.Verdict = j.compared(own)
	f.Reason = fmt.Sprintf("%s of %s canary requests %s%s against %s of %s of stable%s; %s",
		thousands(canary.Bad), thousands(canary.Requests), w.bad, worst(canary, j.unit()),
		thousands(stable.Bad), thousands(stable.Requests), w.stable, j.against(own))
	if f.Verdict != Fail {
		f.Reason += fmt.Sprintf("; may still hide: up to %s %s", percent(f.MayHide), w.noun)
	}
	return f
}

// logSuspect is ln of the evidence, of the release and of the check, with which
// no step ends.
var logSuspect = math.Log(10)

// compared is the verdict of a check that compares. Evidence that is strong but
// comes from too few clients, or is outweighed by other checks, fails nobody,
// and lets no step end either.
func (j *judge) compared(own Evidence) Verdict {
	switch {
	case j.rejects(own):
		return Fail
	case j.log >= logSuspect && own.Log >= logSuspect:
		return Inconclusive
	}
	return Pass
}

func (j *judge) rejects(own Evidence) bool { return j.log >= j.need && own.rejects(j.need) }

// against is the end of a reason: how strong the evidence is, and what would
// have been needed.
func (j *judge) against(own Evidence) string {
	strong, said := own.Log, ""
	if n := len(j.evidence); n > 1 {
		strong, said = j.log, fmt.Sprintf(", of all %d checks %s", n, evidence(j.log))
	}
	sign := "<"
	if strong >= j.need {
		sign = "≥"
	}
	said = fmt.Sprintf("evidence %s%s %s %s", evidence(own.Log), said, sign, evidence(j.need))
	if own.Log >= j.need && own.Clients < minClients {
		said += fmt.Sprintf(", but from %s only", counted(own.Clients, j.unit()))
	}
	return said
}

// fewClients so many or fewer cannot tell versions apart, once they come again
// and again: before that they are only the first ones.
const (
	fewClients = 200
	comeAgain  = 5 // requests a client
)

// fewClients says what to do where the clients are too few.
func (j *judge) fewClients(f Finding) string {
	var n uint64
	for _, a := range j.Arrivals {
		n += a.Canary + a.Stable
	}
	if n == 0 || n > fewClients || j.Canary.Requests+j.Stable.Requests < comeAgain*n || j.unit() != "client" || f.Verdict == Fail {
		return ""
	}
	return fmt.Sprintf("; only %s: use affinity: connection", counted(n, "client"))
}

// compareLatency is the finding of a comparison of how many are slow.
func (j *judge) compareLatency(own Evidence, d Data) Finding {
	if d.StableEdge == 0 {
		return Finding{Verdict: NoData, MayHide: d.Canary.mayHide(),
			Reason: fmt.Sprintf("what is slow is not known before stable has answered %s requests", thousands(pastEnough))}
	}
	f := j.compare(own, d.Canary, d.Stable, words{
		bad:    "took more than " + took(d.CanaryEdge),
		stable: " more than " + took(d.StableEdge),
		noun:   "slow requests",
	})
	c, ok := j.CanaryLatency.Quantile(.99)
	s, okStable := j.StableLatency.Quantile(.99)
	if ok && okStable {
		f.Reason += fmt.Sprintf("; p99 %s, stable's %s", took(c), took(s))
	}
	return f
}

// limited is the finding of an absolute check: a rate of at most c.Max.
func (j *judge) limited(own Evidence, c Check, all Rate, recent Window, w words) Finding {
	f := Finding{Verdict: NoData, MayHide: 1}
	if all.Requests == 0 || recent.Requests == 0 {
		f.Reason = noRequest
		if all.Requests > 0 {
			f.Reason = "no request of the canary lately"
		}
		return f
	}
	cluster := all.cluster()
	f.MayHide = MayHide(float64(recent.Requests)/cluster, float64(recent.Bad)/cluster)
	f.Reason = fmt.Sprintf("%s of %s canary requests %s%s, at most %s may",
		thousands(all.Bad), thousands(all.Requests), w.bad, worst(all, j.unit()), percent(c.Max))
	hides := fmt.Sprintf("the last %s requests may hide: up to %s %s", thousands(recent.Requests), percent(f.MayHide), w.noun)
	switch {
	case j.rejects(own):
		f.Verdict = Fail
		f.Reason += "; " + j.against(own)
	case recent.Watched < c.For:
		f.Verdict = Inconclusive
		f.Reason += fmt.Sprintf("; watched for %s of %s", recent.Watched.Round(1e9), c.For)
	case f.MayHide > c.Max, math.IsNaN(f.MayHide):
		f.Verdict = Inconclusive
		f.Reason += fmt.Sprintf("; %s; %s", hides, j.against(own))
	default:
		f.Verdict = Pass
		f.Reason += "; " + hides
	}
	return f
}
