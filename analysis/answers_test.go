package analysis

import (
	"strings"
	"testing"
)

// TestReading: how requests were counted is said, and too many that could not be
// read let nothing pass.
func TestReading(t *testing.T) {
	for _, c := range []struct {
		what           string
		canary, stable Answers
		verdict        Verdict
		says           string // of the finding; "": there is none
	}{
		{what: "nothing is known", verdict: Pass},
		{what: "all read", canary: Answers{Read: 1200}, verdict: Pass, says: "the status of 1,200 of 1,200 canary answers was read"},
		{what: "no HTTP", canary: Answers{Other: 1200}, verdict: Pass, says: "1,200 canary answers are judged by their connections: they are no HTTP"},
		{what: "some other", canary: Answers{Read: 1000, Other: 200}, verdict: Pass, says: "the status of 1,000 of 1,200 canary answers was read, 200 are judged by their connections"},
		{what: "a few lost", canary: Answers{Read: 950, Lost: 50}, verdict: Pass, says: "the status of 950 of 1,000 canary answers was read"},
		{what: "too many lost", canary: Answers{Read: 940, Lost: 60}, verdict: Inconclusive,
			says: "the status of 940 of 1,000 canary answers was read; 6 % of the canary's are lost, more than maxUnparsed 5 %: errors may be among them"},
		{what: "of stable's", canary: Answers{Read: 1000}, stable: Answers{Read: 10, Lost: 10}, verdict: Inconclusive,
			says: "the status of 1,000 of 1,000 canary answers was read; 50 % of stable's are lost, more than maxUnparsed 5 %: errors may be among them"},
		{what: "everything lost", canary: Answers{Lost: 3}, verdict: Inconclusive,
			says: "the status of 0 of 3 canary answers was read; 100 % of the canary's are lost, more than maxUnparsed 5 %: errors may be among them"},
	} {
		t.Run(c.what, func(t *testing.T) {
			got := Judge(Observation{
				Step: 1, Canary: Rate{Requests: 5000}, Stable: Rate{Requests: 50000}, StepRequests: 5000, CanaryAnswers: c.canary, StableAnswers: c.stable,
			}, Rules{Checks: []Check{{Name: "errors", Kind: CompareErrors}}, FalseAlarm: 0.01, MaxImpact: 1, MaxUnread: 0.05, MinRequests: 100, NextWeight: 0.05})
			if got.Verdict != c.verdict {
				t.Errorf("verdict %s, want %s: %s", got.Verdict, c.verdict, got.Reason)
			}
			if waits := len(got.Waiting) > 0; waits != (c.verdict != Pass) {
				t.Errorf("waiting for %q", got.Waiting)
			}
			var said []string
			for _, f := range got.Findings {
				if f.Check == "reading" {
					said = append(said, f.Reason)
				}
			}
			if strings.Join(said, "|") != c.says {
				t.Errorf("said %q, want %q", said, c.says)
			}
		})
	}
}
