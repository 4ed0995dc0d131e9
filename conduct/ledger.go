package conduct

import (
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/analysis/kayenta"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/rollout"
)

// kayentaPoint is how long one sample of a metric of ours is for the
// Kayenta-compatible judge.
const kayentaPoint = time.Minute

// windowPoint is the time between two readings that are kept for a window.
const windowPoint = time.Second

// A ledger turns readings of the counters into what the judge looks at. It is
// of one run. The counters are the kernel's and outlive the daemon; what a
// ledger forgets with the daemon is where the run began to count, and the
// weights of epochs before the present one: then less is known, never more.
type ledger struct {
	run     int
	judged  judged
	weights map[uint8]rollout.Share // of the version, by epoch

	began time.Duration // CLOCK_BOOTTIME, when the version first had a weight; 0: not yet
	warm  bool          // the warm-up is over
	base  Counts        // at its end
	step  int           // from 0
	first Counts        // when the step began
	last  Counts
	past  analysis.Past
	edge  time.Duration // of stable, by earlier readings; 0: not known

	windows map[string][]point // by check with a For
	points  []point            // a minute apart, of both versions
	reports []analysis.Report
}

// point is a reading that is kept.
type point struct {
	at              time.Duration
	version, stable VersionCounts
}

func newLedger(run int, j judged) *ledger {
	return &ledger{run: run, judged: j, weights: map[uint8]rollout.Share{}, step: -1, windows: map[string][]point{}}
}

// saw notes the weight that an epoch has.
func (l *ledger) saw(k rollout.Kernel) {
	if k.Known {
		l.weights[k.Epoch] = k.Share
	}
}

// read takes a reading in a step. What is slow is decided by earlier ones.
func (l *ledger) read(c Counts, step int, weight rollout.Share) {
	if l.began == 0 && weight > 0 {
		l.began = c.At
	}
	fresh := !l.warm && l.began > 0 && c.At-l.began >= time.Duration(l.judged.Warmup)
	if fresh {
		l.warm, l.base = true, c
	}
	if step != l.step {
		l.enter(step)
	}
	if fresh || l.first.At == 0 { // what came before the run is not of the step
		l.first = c
	}
	if check := l.judged.latencyCheck(); check != nil {
		l.edge = 0
		if edge, ok := l.past.Edge(ratio(check.Compare.Quantile)); ok {
			l.edge = edge
		}
		if l.last.At > 0 {
			l.past.Add(minus(c.Stable.Responses, l.last.Stable.Responses), c.At-l.last.At)
		} else {
			l.past.Add(c.Stable.Responses, 0) // what came before the release
		}
	}
	l.keep(c)
	l.last = c
}

// enter begins a step.
func (l *ledger) enter(step int) {
	if step != l.step {
		l.step, l.first = step, l.last
	}
}

// keep keeps what windows and samples need.
func (l *ledger) keep(c Counts) {
	if !l.warm {
		return
	}
	now := point{c.At, c.Version, c.Stable}
	for _, check := range l.judged.Checks {
		if check.ErrorRate == nil {
			continue
		}
		w := l.windows[check.Name]
		if n := len(w); n == 0 || c.At-w[n-1].at >= windowPoint {
			w = append(w, now)
		}
		// The oldest is the last one that is For old.
		for len(w) > 1 && c.At-w[1].at >= time.Duration(check.ErrorRate.For) {
			w = w[1:]
		}
		l.windows[check.Name] = w
	}
	if n := len(l.points); n == 0 || c.At-l.points[n-1].at >= kayentaPoint {
		l.points = append(l.points, now)
	}
}

// kernelStep is the step that the kernel books outcomes in, from 1; 0 while the
// version warms up.
func (l *ledger) kernelStep() int {
	if !l.warm {
		return 0
	}
	return l.step + 1
}

// slow returns what is slow now, for stable and for the version.
func (l *ledger) slow() (stable, version time.Duration) {
	check := l.judged.latencyCheck()
	if check == nil || l.edge == 0 {
		return 0, 0
	}
	return l.edge, analysis.Tolerated(l.edge, ratio(check.Compare.Tolerance))
}

// breaker is the rule that the kernel's breaker has now.
func (l *ledger) breaker() analysis.BreakerRule {
	if l.judged.Breaker == 0 {
		return analysis.BreakerRule{}
	}
	rate := 0.0
	if l.warm {
		rate = rateOf(l.last.Stable, l.base.Stable).Share()
	}
	return analysis.BreakerRuleFor(rate, l.judged.Breaker)
}

// watch is what the kernel shall watch for.
func (l *ledger) watch(cut rollout.Cut) Watch {
	w := Watch{Step: l.kernelStep(), Breaker: l.breaker(), Cut: cut}
	w.SlowStable, w.SlowVersion = l.slow()
	return w
}

// opened counts the connections since the step began.
func (l *ledger) opened() (stable, version uint64) {
	return l.last.Stable.Connections - min(l.last.Stable.Connections, l.first.Stable.Connections),
		l.last.Version.Connections - min(l.last.Version.Connections, l.first.Version.Connections)
}

// observe is everything that is known of the release. outside are the samples
// of checks that ask others.
func (l *ledger) observe(outside map[string]samples) analysis.Observation {
	o := analysis.Observation{Step: max(l.step, 0) + 1, ByCheck: map[string]analysis.Data{}}
	if !l.warm {
		return o
	}
	o.Canary, o.Stable = rateOf(l.last.Version, l.base.Version), rateOf(l.last.Stable, l.base.Stable)
	o.CanaryAnswers, o.StableAnswers = answersOf(l.last.Version, l.base.Version), answersOf(l.last.Stable, l.base.Stable)
	o.StepRequests = rateOf(l.last.Version, l.first.Version).Requests
	o.CanaryLatency = minus(l.last.Version.Responses, l.base.Version.Responses)
	o.StableLatency = minus(l.last.Stable.Responses, l.base.Stable.Responses)
	errs, slow := l.events(l.last.Errors), l.events(l.last.Slow)
	o.Canary.Clients, o.Stable.Clients = clientsOf(errs)
	for _, a := range l.last.Arrivals {
		if w, ok := l.weightsOf(a.Epoch); ok && l.judged.Unit == "client" {
			o.Arrivals = append(o.Arrivals, analysis.Arrivals{Weights: w, Canary: a.Version, Stable: a.Stable})
		}
	}
	for _, c := range l.judged.Checks {
		o.ByCheck[c.Name] = l.data(c, o, errs, slow, outside[c.Name])
	}
	return o
}

func (l *ledger) data(c api.ReleaseCheck, o analysis.Observation, errs, slow []analysis.Events, outside samples) analysis.Data {
	var d analysis.Data
	switch kind := checkOf(c).Kind; {
	case kind == analysis.CompareErrors:
		d.Events = errs
	case kind == analysis.CompareLatency:
		d.Events = slow
		d.StableEdge, d.CanaryEdge = l.slow()
		d.Canary.Requests, d.Stable.Requests = o.CanaryLatency.Total(), o.StableLatency.Total()
		d.Canary.Clients, d.Stable.Clients = clientsOf(slow)
		d.Canary.Bad, d.Stable.Bad = d.Canary.Clients, d.Stable.Clients
		if d.StableEdge > 0 { // the kernel books clients; requests are counted by what is slow now
			d.Canary.Bad = max(d.Canary.Bad, o.CanaryLatency.Above(d.CanaryEdge))
			d.Stable.Bad = max(d.Stable.Bad, o.StableLatency.Above(d.StableEdge))
		}
	case kind == analysis.MaxErrors:
		if w := l.windows[c.Name]; len(w) > 0 {
			rate := rateOf(l.last.Version, w[0].version)
			d.Window = analysis.Window{Watched: l.last.At - w[0].at, Requests: rate.Requests, Bad: rate.Bad}
		}
	case kind == analysis.CompareReports:
		d.Reports = l.reports
	case kind == analysis.Kayenta && c.Compare != nil:
		d.Metrics = []kayenta.Metric{l.sampled(c)}
	case kind == analysis.Kayenta:
		d.Metrics = []kayenta.Metric{{Name: c.Name, Experiment: outside.version, Control: outside.stable, Groups: []string{c.Name}}}
	case kind == analysis.Metric:
		if !outside.stale {
			d.Samples, d.Said = outside.version, outside.said
		}
	}
	return d
}

// sampled makes samples of both versions, one a minute.
func (l *ledger) sampled(c api.ReleaseCheck) kayenta.Metric {
	m := kayenta.Metric{Name: c.Name, Groups: []string{c.Name}, Direction: kayenta.Increase}
	sample := func(now, before VersionCounts) (float64, bool) {
		if c.Compare.Metric == metricLatency {
			q, ok := minus(now.Responses, before.Responses).Quantile(ratio(c.Compare.Quantile))
			return q.Seconds(), ok
		}
		rate := rateOf(now, before)
		return rate.Share(), rate.Requests > 0
	}
	for i := 1; i < len(l.points); i++ {
		now, before := l.points[i], l.points[i-1]
		if v, ok := sample(now.version, before.version); ok {
			m.Experiment = append(m.Experiment, v)
		}
		if v, ok := sample(now.stable, before.stable); ok {
			m.Control = append(m.Control, v)
		}
	}
	return m
}

// weightsOf returns the weights of an epoch, and false where nobody knows them.
func (l *ledger) weightsOf(epoch uint8) (analysis.Weights, bool) {
	share, ok := l.weights[epoch]
	return analysis.Weights{Canary: uint32(share), Stable: uint32(rollout.Whole - share)}, ok
}

func (l *ledger) events(in []EpochEvents) []analysis.Events {
	var out []analysis.Events
	for _, e := range in {
		if w, ok := l.weightsOf(e.Epoch); ok {
			out = append(out, analysis.Events{Weights: w, Step: e.Step, Prev: e.Prev, Canary: e.Version, Stable: e.Stable})
		}
	}
	return out
}

// clientsOf counts the distinct clients behind events.
func clientsOf(events []analysis.Events) (version, stable uint64) {
	for _, e := range events {
		if e.Prev == 0 {
			version += e.Canary
			stable += e.Stable
		}
	}
	return version, stable
}

// report books outcomes that somebody reported in a step.
func (l *ledger) report(stable, version analysis.Outcomes) {
	step := max(l.step, 0) + 1
	if n := len(l.reports); n > 0 && l.reports[n-1].Step == step && (empty(l.reports[n-1].Stable) || empty(l.reports[n-1].Canary)) {
		r := &l.reports[n-1]
		r.Stable, r.Canary = plus(r.Stable, stable), plus(r.Canary, version)
		return
	}
	l.reports = append(l.reports, analysis.Report{Step: step, Stable: stable, Canary: version})
}

func empty(o analysis.Outcomes) bool { return o.Success+o.Failure == 0 }

func plus(a, b analysis.Outcomes) analysis.Outcomes {
	return analysis.Outcomes{Success: a.Success + b.Success, Failure: a.Failure + b.Failure}
}

// rateOf is what a version did since a reading. A request is what was answered,
// well or not, or whose connection failed; where fewer were answered than
// connections opened, it is a connection.
func rateOf(now, before VersionCounts) analysis.Rate {
	bad := now.Errors - min(now.Errors, before.Errors)
	failed := now.Failed - min(now.Failed, before.Failed)
	a := answersOf(now, before)
	answered := max(a.Read+a.Lost+a.Other, minus(now.Responses, before.Responses).Total())
	r := analysis.Rate{
		Requests: max(now.Connections-min(now.Connections, before.Connections), answered+bad),
		Bad:      bad + failed,
	}
	for address, b := range now.Backends {
		if bad := b.Errors - min(b.Errors, before.Backends[address].Errors); bad > 0 {
			r.Backends = append(r.Backends, analysis.Backend{Address: address, Bad: bad})
		}
	}
	return r
}

// answersOf is how a version's answers since a reading are known.
func answersOf(now, before VersionCounts) analysis.Answers {
	n, b := now.Answers, before.Answers
	return analysis.Answers{Read: n.Read - min(n.Read, b.Read), Lost: n.Lost - min(n.Lost, b.Lost), Other: n.Other - min(n.Other, b.Other)}
}

// minus is what a histogram counted since another reading of it.
func minus(now, before analysis.Histogram) analysis.Histogram {
	out := analysis.Histogram{First: now.First, Counts: make([]uint64, len(now.Counts))}
	for i, n := range now.Counts {
		if i < len(before.Counts) {
			n -= min(n, before.Counts[i])
		}
		out.Counts[i] = n
	}
	return out
}
