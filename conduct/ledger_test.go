package conduct

import (
	"reflect"
	"testing"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/rollout"
)

// counted is a reading at a time, of so many connections and errors of each.
func counted(at time.Duration, stable, stableErrors, version, versionErrors uint64) Counts {
	of := func(n, bad uint64) VersionCounts {
		return VersionCounts{Connections: n, Errors: bad, Backends: map[string]BackendCounts{"10.1.0.4:8080": {n, bad}}}
	}
	return Counts{At: at, Stable: of(stable, stableErrors), Version: of(version, versionErrors)}
}

func errorsRule() judged {
	return judged{
		Checks:     []api.ReleaseCheck{{Name: "errors", ErrorRate: &api.ErrorRateCheck{Max: 10, For: api.Duration(2 * time.Minute)}}},
		FalseAlarm: 100, MaxImpact: 50, MinRequests: 100, Warmup: api.Duration(30 * time.Second), Breaker: 5, Unit: "client",
	}
}

// What the version does while it warms up is neither booked nor judged.
func TestLedgerWarmUp(t *testing.T) {
	l := newLedger(1, errorsRule())
	l.read(counted(time.Hour, 1000, 7, 0, 0), 0, 0)
	l.read(counted(time.Hour+time.Second, 1100, 7, 5, 2), 0, 100)
	if l.kernelStep() != 0 {
		t.Errorf("outcomes are booked in step %d of the warm-up", l.kernelStep())
	}
	if stable, version := l.opened(); stable != 100 || version != 5 {
		t.Errorf("the step has opened %d connections of stable and %d of the version, want 100 and 5", stable, version)
	}
	if o := l.observe(nil); o.Canary.Requests != 0 {
		t.Errorf("the warm-up is judged: %+v", o.Canary)
	}
	l.read(counted(time.Hour+31*time.Second, 2000, 8, 50, 3), 0, 100)
	if l.kernelStep() != 1 {
		t.Errorf("after the warm-up outcomes are booked in step %d, want 1", l.kernelStep())
	}
	l.read(counted(time.Hour+40*time.Second, 3000, 9, 60, 4), 0, 100)
	o := l.observe(nil)
	if o.Canary.Requests != 10 || o.Canary.Bad != 1 || o.Stable.Requests != 1000 || o.Stable.Bad != 1 || o.StepRequests != 10 {
		t.Errorf("stable %+v, canary %+v, %d requests in the step", o.Stable, o.Canary, o.StepRequests)
	}
	if want := []analysis.Backend{{Address: "10.1.0.4:8080", Bad: 1}}; !reflect.DeepEqual(o.Canary.Backends, want) {
		t.Errorf("errors by backend: %+v, want %+v", o.Canary.Backends, want)
	}
}

// A step counts its own requests, and a window what it says.
func TestLedgerStepsAndWindows(t *testing.T) {
	rule := errorsRule()
	rule.Warmup = 0
	l := newLedger(1, rule)
	for s := range 300 {
		at := time.Hour + time.Duration(s)*time.Second
		l.read(counted(at, uint64(100*s), 0, uint64(10*s), uint64(s)), s/200, 500)
	}
	o := l.observe(nil)
	if o.Step != 2 || o.StepRequests != 990 && o.StepRequests != 1000 {
		t.Errorf("step %d with %d requests, want step 2 with those of 100 seconds", o.Step, o.StepRequests)
	}
	w := o.ByCheck["errors"].Window
	if w.Watched != 2*time.Minute || w.Requests != 1200 || w.Bad != 120 {
		t.Errorf("the window is %+v, want 2 minutes with 1,200 requests, 120 of them bad", w)
	}
}

// Events carry the weights of their epoch; of an epoch that nobody knows they
// say nothing.
func TestLedgerEpochs(t *testing.T) {
	rule := errorsRule()
	rule.Warmup = 0
	l := newLedger(1, rule)
	l.saw(rollout.Kernel{Known: true, Epoch: 7, Share: 100})
	l.saw(rollout.Kernel{Known: false, Epoch: 8, Share: 500})
	c := counted(time.Hour, 1, 0, 1, 0)
	c.Errors = []EpochEvents{{Epoch: 7, Step: 1, Version: 2, Stable: 1}, {Epoch: 8, Step: 1, Version: 9}}
	c.Arrivals = []EpochArrivals{{Epoch: 7, Version: 1, Stable: 99}, {Epoch: 8, Version: 9}}
	l.read(c, 0, 100)
	o := l.observe(nil)
	want := analysis.Weights{Canary: 100, Stable: 9900}
	if events := l.events(c.Errors); len(events) != 1 || events[0].Weights != want || events[0].Canary != 2 {
		t.Errorf("events %+v, want those of epoch 7 with %+v", events, want)
	}
	if len(o.Arrivals) != 1 || o.Arrivals[0].Weights != want || o.Canary.Clients != 2 {
		t.Errorf("arrivals %+v, %d erring clients", o.Arrivals, o.Canary.Clients)
	}
}

// Where clients keep their connections, answers are what is counted.
func TestRequestsOfKeptConnections(t *testing.T) {
	now, before := counted(0, 0, 0, 12, 3).Version, counted(0, 0, 0, 10, 1).Version
	now.Responses = analysis.Histogram{Counts: []uint64{500, 40}}
	before.Responses = analysis.Histogram{Counts: []uint64{400, 0}}
	if r := rateOf(now, before); r.Requests != 142 || r.Bad != 2 {
		t.Errorf("%+v, want 140 answers and 2 failures", r)
	}
}

// Answers that were read count by themselves: those that are errors are among
// them, and connections that failed come beside.
func TestRequestsThatWereRead(t *testing.T) {
	now, before := counted(0, 0, 0, 12, 3).Version, counted(0, 0, 0, 10, 1).Version
	now.Answers = analysis.Answers{Read: 1000, Lost: 10, Other: 5}
	before.Answers = analysis.Answers{Read: 400, Lost: 4}
	now.Failed, before.Failed = 30, 10
	now.Responses = analysis.Histogram{Counts: []uint64{500}} // not all have a time
	if r := rateOf(now, before); r.Requests != 613 || r.Bad != 22 {
		t.Errorf("%+v, want 611 answers, 20 of them errors, and 2 failed connections", r)
	}
	if a := answersOf(now, before); a != (analysis.Answers{Read: 600, Lost: 6, Other: 5}) {
		t.Errorf("%+v", a)
	}
}

// Outcomes that are reported are paired: a report needs both versions.
func TestLedgerReports(t *testing.T) {
	l := newLedger(1, errorsRule())
	good, bad := analysis.Outcomes{Success: 90, Failure: 1}, analysis.Outcomes{Success: 5, Failure: 5}
	l.report(good, analysis.Outcomes{})
	l.report(analysis.Outcomes{}, bad)
	l.report(good, analysis.Outcomes{})
	want := []analysis.Report{{Step: 1, Stable: good, Canary: bad}, {Step: 1, Stable: good}}
	if !reflect.DeepEqual(l.reports, want) {
		t.Errorf("%+v, want %+v", l.reports, want)
	}
}
