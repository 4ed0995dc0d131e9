// Package analysis judges a version by what is known of it: pure statistics on
// counts and samples, with no clock, map or socket of its own.
package analysis

// A Verdict is what a check says of a version at one look.
type Verdict int

const (
	NoData       Verdict = iota // nothing to judge by: never a pass
	Inconclusive                // not bad, but it may still hide too much
	Pass
	Fail
)

func (v Verdict) String() string {
	switch v {
	case Inconclusive:
		return "inconclusive"
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	}
	return "noData"
}

// A Finding is a check's verdict with its reason.
type Finding struct {
	Check   string
	Verdict Verdict
	// Reason is for a person: counts by version and by backend, distinct
	// clients, the rule.
	Reason string
	// Evidence is the e-value against the version: its expectation is at most
	// 1 when the version is no worse than stable. 0 where the check has none.
	Evidence float64
	// MayHide is the largest rate of bad outcomes that the counts do not rule
	// out, 0 to 1; negative where the check has none.
	MayHide float64
}
