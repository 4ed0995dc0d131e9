package analysis

import (
	"fmt"
	"math"
	"strings"
)

// A Judgement is what is said of a canary at one look.
type Judgement struct {
	// Verdict is Fail when a check fails; else Inconclusive when one cannot
	// tell yet or the step may not end; else NoData when one has nothing to
	// judge by; else Pass.
	Verdict Verdict
	// Reason is one line: the findings that made the verdict, or the counts
	// where all of them pass.
	Reason string
	// Evidence is the release's e-value, against 1/falseAlarm.
	Evidence float64
	// LogEvidence is its natural logarithm, which has no upper end.
	LogEvidence float64
	// Findings are in the order of the checks, then the sample ratio and how
	// requests were read.
	Findings []Finding
	// MayHide is the largest rate of failures that the canary's counts do not
	// rule out, 0 to 1.
	MayHide float64
	// Waiting has every reason why the step may not end yet, apart from its
	// hold, which is the caller's. It is empty exactly when the verdict is Pass.
	Waiting []string
}

// judge is one look.
type judge struct {
	Rules
	Observation
	evidence []Evidence // by check; those without are left out
	log      float64    // of the release
	need     float64    // what log must reach for a rejection
}

// Judge looks at a release once. It keeps nothing: the same observation has the
// same judgement, and each look is as good as any other.
func Judge(o Observation, r Rules) Judgement {
	j := &judge{Rules: r, Observation: o, need: -math.Log(r.FalseAlarm)}
	own := make([]Evidence, len(r.Checks))
	for i, c := range r.Checks {
		if c.Kind.statistical() {
			own[i] = j.weigh(c)
			j.evidence = append(j.evidence, own[i])
		}
	}
	j.log = ReleaseLog(j.evidence)

	out := Judgement{Evidence: EValue(j.log), LogEvidence: j.log, MayHide: o.Canary.mayHide()}
	for i, c := range r.Checks {
		out.Findings = append(out.Findings, j.find(c, own[i]))
	}
	var loud []string
	for _, about := range []func() (Finding, string){j.sampleRatio, j.reading} {
		f, why := about()
		if f.Check != "" {
			out.Findings = append(out.Findings, f)
		}
		if why != "" {
			loud = append(loud, why)
		}
	}
	out.Waiting = j.waiting(out.Findings, loud)
	out.Verdict, out.Reason = j.sumUp(out)
	return out
}

// weigh is the evidence of one check.
func (j *judge) weigh(c Check) Evidence {
	d := j.ByCheck[c.Name]
	switch c.Kind {
	case CompareReports:
		return Tallied(ReportedEvents(d.Reports), j.Step)
	case MaxErrors:
		return j.Canary.AgainstLimit(c.Max)
	case MaxSlow:
		return d.Canary.AgainstLimit(c.Max)
	}
	return Tallied(d.Events, j.Step)
}

// sumUp is the verdict of all, and the findings that made it.
func (j *judge) sumUp(out Judgement) (Verdict, string) {
	for _, v := range []Verdict{Fail, Inconclusive, NoData} {
		var reasons []string
		for _, f := range out.Findings {
			if f.Verdict == v {
				reasons = append(reasons, f.String())
			}
		}
		if len(reasons) > 0 {
			return v, strings.Join(reasons, " · ")
		}
	}
	if j.Canary.Requests == 0 {
		return NoData, noRequest
	}
	verdict := Pass
	if len(out.Waiting) > 0 {
		verdict = Inconclusive
	}
	return verdict, fmt.Sprintf("%s of %s canary requests failed against %s of %s of stable; may still hide: up to %s errors",
		thousands(j.Canary.Bad), thousands(j.Canary.Requests),
		thousands(j.Stable.Bad), thousands(j.Stable.Requests), percent(out.MayHide))
}
