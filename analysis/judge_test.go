package analysis

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"siskin.dev/siskin/analysis/kayenta"
)

// errorsOnly are the rules of a release that compares errors, before its second
// step.
func errorsOnly() Rules {
	return Rules{
		Checks:     []Check{{Name: "worse-than-stable", Kind: CompareErrors}},
		FalseAlarm: .01, MaxImpact: .005, MinRequests: 100, NextWeight: .25,
	}
}

// healthy is a canary at 5 % with much traffic and few errors.
func healthy() Observation {
	return Observation{
		Step:         1,
		Canary:       Rate{Requests: 1204, Bad: 1, Clients: 1, Backends: []Backend{{"10.1.0.4:8080", 1}}},
		Stable:       Rate{Requests: 22_911, Bad: 20, Clients: 20},
		StepRequests: 1204, Due: 1200, Known: 1200,
		ByCheck: map[string]Data{"worse-than-stable": {Events: []Events{{Weights: at(5), Step: 1, Canary: 1, Stable: 20}}}},
	}
}

// broken is the same canary with seven errors of six clients.
func broken() Observation {
	o := healthy()
	o.Canary = Rate{Requests: 1204, Bad: 7, Clients: 6, Backends: []Backend{{"10.1.0.5:8080", 0}, {"10.1.0.4:8080", 7}}}
	o.Stable = Rate{Requests: 22_911, Bad: 3, Clients: 3}
	o.ByCheck["worse-than-stable"] = Data{Events: []Events{{Weights: at(5), Step: 1, Canary: 6, Stable: 3}}}
	return o
}

func TestJudgeOfErrors(t *testing.T) {
	tests := []struct {
		name    string
		o       func() Observation
		rules   func(*Rules)
		verdict Verdict
		reason  string
		waiting string // of the only reason to wait; "" when the step may end
	}{
		{
			name: "healthy", o: healthy, verdict: Pass,
			reason: "1 of 1,204 canary requests failed against 20 of 22,911 of stable; may still hide: up to 0.56 % errors",
		},
		{
			name: "broken", o: broken, verdict: Fail,
			reason:  "worse-than-stable: fail: 7 of 1,204 canary requests failed (6 clients; 10.1.0.4:8080 7) against 3 of 22,911 of stable; evidence 21,619 ≥ 100",
			waiting: "evidence 21,619 against the canary, a step ends below 10",
		},
		{
			name: "two clients", verdict: Inconclusive,
			o: func() Observation {
				o := broken()
				o.Canary.Requests, o.Canary.Bad, o.Canary.Clients = 5000, 2, 2
				o.ByCheck["worse-than-stable"] = Data{Events: []Events{{Weights: at(1), Step: 1, Canary: 2}}}
				return o
			},
			reason:  "but from 2 clients only",
			waiting: "a step ends below 10",
		},
		{
			name: "no traffic", o: func() Observation { return Observation{Step: 1} }, verdict: NoData,
			reason: "worse-than-stable: noData: no request of the canary yet",
		},
		{
			name: "nothing to compare with", verdict: NoData,
			o:      func() Observation { o := healthy(); o.Stable = Rate{}; return o },
			reason: "none of stable to compare with",
		},
		{
			name: "too few requests in this step", verdict: Inconclusive,
			o:       func() Observation { o := healthy(); o.StepRequests = 40; return o },
			reason:  "1 of 1,204 canary requests failed against 20",
			waiting: "40 of 100 requests of the canary in this step",
		},
		{
			name: "it may hide too much", verdict: Inconclusive,
			o: func() Observation {
				o := healthy()
				o.Canary, o.Stable.Bad = Rate{Requests: 100}, 0
				o.ByCheck = nil
				return o
			},
			reason:  "0 of 100 canary requests failed against 0 of 22,911 of stable; evidence 1 < 100; may still hide: up to 3.3 % errors, so 0.84 % of all requests at 25 %, more than maxImpact 0.5 %",
			waiting: "may still hide: up to 3.3 % errors, so 0.84 % of all requests at 25 %, more than maxImpact 0.5 %",
		},
		{
			name: "outcomes are not known yet", verdict: Inconclusive,
			o:       func() Observation { o := healthy(); o.Known = 1187; return o },
			reason:  "1 of 1,204 canary requests failed against 20",
			waiting: "1,187 of 1,200 outcomes are known, a step ends with 99 %",
		},
		{
			name: "clients are not split as asked", verdict: Inconclusive,
			o:       func() Observation { o := healthy(); o.Arrivals = []Arrivals{{at(5), 20, 1980}}; return o },
			reason:  "sample-ratio: inconclusive: the canary got 1 % of 2,000 new clients, 5 % were asked for",
			waiting: "sample-ratio: inconclusive",
		},
		{
			name: "few clients", verdict: Inconclusive,
			o: func() Observation {
				o := healthy()
				o.Canary.Requests, o.Arrivals = 200, []Arrivals{{at(5), 3, 47}}
				return o
			},
			reason:  "; only 50 clients: use affinity: connection",
			waiting: "more than maxImpact",
		},
		{
			name: "no checks", o: healthy, rules: func(r *Rules) { r.Checks = nil }, verdict: Pass,
			reason: "may still hide",
		},
		{
			name: "no checks, no traffic", o: func() Observation { return Observation{Step: 1} },
			rules: func(r *Rules) { r.Checks, r.MinRequests, r.MaxImpact = nil, 0, 1 }, verdict: NoData,
			reason: "no request of the canary yet",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules := errorsOnly()
			if tt.rules != nil {
				tt.rules(&rules)
			}
			got := Judge(tt.o(), rules)
			if got.Verdict != tt.verdict || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("%s: %s\nwant %s: %s", got.Verdict, got.Reason, tt.verdict, tt.reason)
			}
			if strings.Contains(got.Reason, "\n") {
				t.Error("the reason has several lines")
			}
			waits := strings.Join(got.Waiting, "\n")
			if (tt.verdict == Pass) != (waits == "") || !strings.Contains(waits, tt.waiting) {
				t.Errorf("waiting for %q, want %q", waits, tt.waiting)
			}
			if tt.waiting != "" && len(got.Waiting) != 1 {
				t.Errorf("waiting for %d things, want 1: %q", len(got.Waiting), got.Waiting)
			}
		})
	}
}

func TestJudgeOfLatency(t *testing.T) {
	rules := errorsOnly()
	rules.Checks = append(rules.Checks, Check{Name: "p99", Kind: CompareLatency, Quantile: .99, Tolerance: .2})
	o := healthy()
	slow := Data{
		Canary: Rate{Requests: 1204, Bad: 31, Clients: 24}, Stable: Rate{Requests: 22_911, Bad: 220, Clients: 200},
		Events:     []Events{{Weights: at(5), Step: 1, Canary: 24, Stable: 60}},
		StableEdge: 52 * time.Millisecond, CanaryEdge: Tolerated(52*time.Millisecond, .2),
	}
	o.ByCheck["p99"] = slow
	o.CanaryLatency = buckets(repeat(100, 84*time.Millisecond)...)
	o.StableLatency = buckets(repeat(100, 51*time.Millisecond)...)
	got := Judge(o, rules)
	want := "p99: fail: 31 of 1,204 canary requests took more than 62.4 ms (24 clients) against 220 of 22,911 of stable more than 52 ms; evidence above 1,000,000, of all 2 checks above 1,000,000 ≥ 100; p99 88.3 ms, stable's 52.5 ms"
	if got.Verdict != Fail || got.Reason != want {
		t.Errorf("%s: %s\nwant %s", got.Verdict, got.Reason, want)
	}
	if f := got.Findings[0]; f.Verdict == Fail {
		t.Errorf("the check of errors fails, too: %s", f.Reason)
	}

	slow.StableEdge, slow.CanaryEdge, slow.Events = 0, 0, nil
	o.ByCheck["p99"] = slow
	got = Judge(o, rules)
	if got.Verdict != NoData || !strings.Contains(got.Reason, "before stable has answered 1,000 requests") || len(got.Waiting) == 0 {
		t.Errorf("without an edge: %s: %s", got.Verdict, got.Reason)
	}
}

func TestJudgeOfLimits(t *testing.T) {
	check := Check{Name: "errors", Kind: MaxErrors, Max: .01, For: 2 * time.Minute}
	rules := errorsOnly()
	rules.Checks = []Check{check}
	tests := []struct {
		name    string
		canary  Rate
		window  Window
		verdict Verdict
		reason  string
	}{
		{"none yet", Rate{}, Window{}, NoData, "no request of the canary yet"},
		{"none lately", Rate{Requests: 50}, Window{Watched: time.Hour}, NoData, "no request of the canary lately"},
		{"not watched for long", Rate{Requests: 5000}, Window{40 * time.Second, 5000, 0}, Inconclusive,
			"0 of 5,000 canary requests failed, at most 1 % may; watched for 40s of 2m0s"},
		{"too few to tell", Rate{Requests: 100}, Window{2 * time.Minute, 100, 0}, Inconclusive,
			"the last 100 requests may hide: up to 3.3 % errors; evidence"},
		{"below", Rate{Requests: 10_000, Bad: 10, Clients: 10}, Window{2 * time.Minute, 10_000, 10}, Pass,
			"10 of 10,000 canary requests failed (10 clients), at most 1 % may; the last 10,000 requests may hide: up to 0.23 % errors"},
		{"above", Rate{Requests: 1000, Bad: 40, Clients: 40}, Window{2 * time.Minute, 1000, 40}, Fail,
			"40 of 1,000 canary requests failed (40 clients), at most 1 % may; evidence"},
		{"above, but a single client", Rate{Requests: 1000, Bad: 40, Clients: 1}, Window{2 * time.Minute, 1000, 40}, Inconclusive,
			"may hide"},
		{"above at last", Rate{Requests: 100_000, Bad: 400, Clients: 400}, Window{2 * time.Minute, 2000, 60}, Inconclusive, "may hide"},
	}
	for _, tt := range tests {
		o := Observation{
			Step: 1, Canary: tt.canary, Stable: Rate{Requests: 100_000}, StepRequests: tt.canary.Requests,
			ByCheck: map[string]Data{"errors": {Window: tt.window}},
		}
		f := Judge(o, rules).Findings[0]
		if f.Verdict != tt.verdict || !strings.Contains(f.Reason, tt.reason) {
			t.Errorf("%s: %s: %s\nwant %s: %s", tt.name, f.Verdict, f.Reason, tt.verdict, tt.reason)
		}
	}
	slow := Check{Name: "slow", Kind: MaxSlow, Max: .01, Bound: 500 * time.Millisecond}
	rules.Checks = []Check{slow}
	o := healthy()
	o.ByCheck["slow"] = Data{Canary: Rate{Requests: 1000, Bad: 90, Clients: 80}, Window: Window{time.Minute, 1000, 90}}
	if f := Judge(o, rules).Findings[0]; f.Verdict != Fail || !strings.Contains(f.Reason, "90 of 1,000 canary requests took more than 500 ms (80 clients)") {
		t.Errorf("%s: %s", f.Verdict, f.Reason)
	}
}

func TestJudgeOfReports(t *testing.T) {
	rules := errorsOnly()
	rules.Checks = []Check{{Name: "tasks", Kind: CompareReports}}
	judge := func(reports ...Report) Finding {
		o := healthy()
		o.ByCheck["tasks"] = Data{Reports: reports}
		return Judge(o, rules).Findings[0]
	}
	bad := Report{Step: 1, Canary: Outcomes{80, 20}, Stable: Outcomes{950, 50}}
	if f := judge(bad, bad); f.Verdict != Fail || !strings.Contains(f.Reason, "40 of 200 canary requests were reported as failures against 100 of 2,000 of stable; evidence") {
		t.Errorf("%s: %s", f.Verdict, f.Reason)
	}
	// However unevenly the versions report: all of this is the same rate.
	even := []Report{
		{1, Outcomes{90, 10}, Outcomes{9, 1}}, {1, Outcomes{9, 1}, Outcomes{9000, 1000}}, {2, Outcomes{0, 0}, Outcomes{900, 100}},
	}
	if f := judge(even...); f.Verdict != Pass {
		t.Errorf("%s: %s", f.Verdict, f.Reason)
	}
	if f := judge(); f.Verdict != NoData {
		t.Errorf("no report: %s: %s", f.Verdict, f.Reason)
	}
	if f := judge(Report{1, Outcomes{0, 10}, Outcomes{}}); f.Verdict != NoData {
		t.Errorf("nothing of stable: %s: %s", f.Verdict, f.Reason)
	}
	huge := Report{1, Outcomes{1 << 40, 1 << 30}, Outcomes{1 << 50, 1 << 40}}
	if w, ok := reportedWeights(huge); !ok || math.Abs(float64(w.Canary)/float64(w.Stable)/(1<<40+1<<30)*(1<<50+1<<40)-1) > 1e-6 {
		t.Errorf("weights of %v: %v", huge, w)
	}
}

func TestJudgeOfNumbersFromOutside(t *testing.T) {
	low, high := .9, 1.1
	tests := []struct {
		name    string
		c       Check
		samples []float64
		said    string
		verdict Verdict
		reason  string
	}{
		{"silent", Check{AtMost: &high}, nil, "", NoData, "no value"},
		{"no number", Check{AtMost: &high}, []float64{1, math.NaN()}, "", NoData, "no value"},
		{"within", Check{AtLeast: &low, AtMost: &high}, []float64{9, 1}, "", Pass, "1, at least 0.9 and at most 1.1"},
		{"below", Check{AtLeast: &low}, []float64{.5}, "", Fail, "0.5, not at least 0.9"},
		{"in words", Check{AtLeast: &low}, []float64{0}, "it answers 500", Fail, "it answers 500"},
		{"above once of three", Check{AtMost: &high, Failures: 3}, []float64{2, 1, 2}, "", Inconclusive, "2, not at most 1.1, 1 times of 3"},
		{"above three times", Check{AtMost: &high, Failures: 3}, []float64{1, 2, math.NaN(), 3}, "", Fail, "3, not at most 1.1, 3 times in a row"},
	}
	for _, tt := range tests {
		if f := withinBounds(tt.c, tt.samples, tt.said); f.Verdict != tt.verdict || f.Reason != tt.reason {
			t.Errorf("%s: %s: %s\nwant %s: %s", tt.name, f.Verdict, f.Reason, tt.verdict, tt.reason)
		}
	}
}

func TestJudgeLikeKayenta(t *testing.T) {
	m := kayenta.Metric{Name: "queue", Groups: []string{"g"},
		Experiment: []float64{11, 12, 13, 14, 15, 16}, Control: []float64{1, 2, 3, 4, 5, 6}}
	same := m
	same.Name, same.Experiment = "heap", m.Control
	tests := []struct {
		name    string
		metrics []kayenta.Metric
		verdict Verdict
		reason  string
	}{
		{"worse", []kayenta.Metric{m}, Fail, "score 0 of 100, Fail: queue High (3.86 times stable's mean)"},
		{"alike", []kayenta.Metric{same}, Pass, "score 100 of 100, Pass"},
		{"marginal", []kayenta.Metric{m, same, same, same}, Inconclusive, "score 75 of 100, Marginal: queue High (3.86 times stable's mean)"},
		{"no metric", nil, NoData, ""},
		{"no samples", []kayenta.Metric{{Name: "queue", Groups: []string{"g"}}}, NoData, "queue Nodata"},
		{"worse than nothing", []kayenta.Metric{{Name: "queue", Groups: []string{"g"}, Experiment: m.Experiment, Control: []float64{0, 0, 0, 0, 0, 0}}}, Fail, "queue High"},
		{"required, without samples", []kayenta.Metric{{Name: "queue", MustHaveData: true, Groups: []string{"g"}}}, Fail, "queue without the data that it must have"},
		{"critical without samples", []kayenta.Metric{{Name: "queue", Critical: true}}, Fail, "queue Nodata"},
	}
	for _, tt := range tests {
		if f := likeKayenta(Check{}, tt.metrics); f.Verdict != tt.verdict || !strings.Contains(f.Reason, tt.reason) {
			t.Errorf("%s: %s: %s\nwant %s: %s", tt.name, f.Verdict, f.Reason, tt.verdict, tt.reason)
		}
	}
}

// Every judgement can be stored and sent, however strong its evidence.
func TestJudgementIsJSON(t *testing.T) {
	o := broken()
	o.ByCheck["worse-than-stable"] = Data{Events: []Events{{Weights: at(5), Step: 1, Canary: 1 << 40}}}
	if _, err := json.Marshal(Judge(o, errorsOnly())); err != nil {
		t.Error(err)
	}
}

// Clients are few when they come again and again, not when a release has only
// begun.
func TestFewClientsComeAgain(t *testing.T) {
	const hint = "use affinity: connection"
	for requests, want := range map[uint64]bool{300: false, 999: false, 1001: true, 20_000: true} {
		o := healthy()
		o.Canary.Requests, o.Stable.Requests, o.Arrivals = requests/20, requests-requests/20, []Arrivals{{at(5), 10, 190}}
		if got := Judge(o, errorsOnly()).Findings[0].Reason; strings.Contains(got, hint) != want {
			t.Errorf("200 clients with %d requests: %s", requests, got)
		}
	}
}
