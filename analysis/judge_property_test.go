package analysis

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"siskin.dev/siskin/analysis/kayenta"
)

// drawRate draws a rate, often of nothing.
func drawRate(t *rapid.T, name string) Rate {
	n := rapid.Uint64Range(0, 1e6).Draw(t, name+" requests") >> rapid.IntRange(0, 20).Draw(t, name+" shift")
	bad := rapid.Uint64Range(0, n).Draw(t, name+" bad")
	return Rate{Requests: n, Bad: bad, Clients: rapid.Uint64Range(0, bad).Draw(t, name+" clients")}
}

func drawData(t *rapid.T, step int) Data {
	d := Data{Canary: drawRate(t, "slow"), Stable: drawRate(t, "slow of stable")}
	for range rapid.IntRange(0, 3).Draw(t, "rows") {
		d.Events = append(d.Events, Events{
			Weights: at(rapid.Uint32Range(0, 100).Draw(t, "weight")), Step: rapid.IntRange(1, step).Draw(t, "step"),
			Canary: rapid.Uint64Range(0, 30).Draw(t, "canary"), Stable: rapid.Uint64Range(0, 30).Draw(t, "stable"),
		})
		d.Reports = append(d.Reports, Report{step, Outcomes{rapid.Uint64Range(0, 99).Draw(t, "success"), rapid.Uint64Range(0, 9).Draw(t, "failure")}, Outcomes{50, 1}})
	}
	if rapid.Bool().Draw(t, "edge") {
		d.StableEdge, d.CanaryEdge = time.Millisecond, 2*time.Millisecond
	}
	recent := drawRate(t, "window")
	d.Window = Window{time.Duration(rapid.IntRange(0, 300).Draw(t, "watched")) * time.Second, recent.Requests, recent.Bad}
	d.Samples = rapid.SliceOfN(rapid.Float64(), 0, 3).Draw(t, "samples")
	d.Metrics = []kayenta.Metric{{Name: "m", Groups: []string{"g"}, Experiment: d.Samples, Control: []float64{1, 2, 3}}}
	return d
}

// Whatever is seen: a pass is never of nothing, a step ends only with a pass, and
// every reason is one line.
func TestJudgeKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := .5
		rules := Rules{FalseAlarm: .01, MaxImpact: rapid.Float64Range(0, 1).Draw(t, "max impact"),
			MinRequests: rapid.Uint64Range(0, 100).Draw(t, "min requests"), NextWeight: .25}
		o := Observation{
			Step: rapid.IntRange(1, 5).Draw(t, "step"), Canary: drawRate(t, "canary"), Stable: drawRate(t, "stable"),
			StepRequests: rapid.Uint64Range(0, 200).Draw(t, "step requests"), Due: 100, Known: rapid.Uint64Range(90, 100).Draw(t, "known"),
			ByCheck: map[string]Data{},
		}
		for _, k := range rapid.SliceOfDistinct(rapid.IntRange(int(CompareErrors), int(Kayenta)), rapid.ID).Draw(t, "kinds") {
			c := Check{Name: string(rune('a' + k)), Kind: Kind(k), Max: .01, For: time.Minute, AtMost: &limit, Tolerance: .2}
			rules.Checks = append(rules.Checks, c)
			o.ByCheck[c.Name] = drawData(t, o.Step)
		}
		j := Judge(o, rules)
		if (j.Verdict == Pass) != (len(j.Waiting) == 0) {
			t.Fatalf("%s, but waiting for %q", j.Verdict, j.Waiting)
		}
		if j.Verdict == Pass && o.Canary.Requests == 0 {
			t.Fatalf("nothing passes: %s", j.Reason)
		}
		if len(j.Findings) != len(rules.Checks) {
			t.Fatalf("%d findings of %d checks", len(j.Findings), len(rules.Checks))
		}
		for i, f := range j.Findings {
			if f.Check != rules.Checks[i].Name || f.Reason == "" || f.Verdict == Fail && j.Verdict != Fail || f.Verdict != Pass && j.Verdict == Pass {
				t.Fatalf("finding %+v of a judgement %s", f, j.Verdict)
			}
		}
		for _, line := range append(j.Waiting, j.Reason) {
			if line == "" || strings.ContainsAny(line, "\n\t") || strings.Contains(line, "NaN") || strings.Contains(line, "%!") {
				t.Fatalf("not a line for a person: %q", line)
			}
		}
	})
}
