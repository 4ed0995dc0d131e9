package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"siskin.dev/siskin/analysis"
)

const (
	falseAlarm = 0.01
	maxErrors  = 0.01 // of the absolute check
	maxImpact  = 0.005
)

// checks of a release: the two comparisons, and the absolute one.
const (
	compareErrors = iota
	compareLatency
	absolute
	checks
)

// end is how a release ended.
type end string

const (
	tookAll   end = ""        // all steps are over
	byErrors  end = "errors"  // rejected by the comparison of errors,
	byLatency end = "latency" // of latency,
	byLimit   end = "limit"   // or by the absolute check
	byBreaker end = "breaker"
	tooLong   end = "too long" // a step never ended
)

// result is what became of a release.
type result struct {
	end      end
	requests uint64  // of the canary
	seconds  float64 // that it took
}

func (r result) rolledBack() bool { return r.end != tookAll && r.end != tooLong }

// release is one simulated release.
type release struct {
	s     scenario
	w     *world
	flows *flows
	rng   *rand.Rand

	reach  [len(weights)]float64 // the canary's part of the traffic, by step
	begins []float64             // of the steps so far
	over   bool                  // the last step is, too
	now    float64

	requests [2]uint64 // by version
	errors   [2]uint64
	erring   [2]uint64 // distinct clients that had one
	before   uint64    // requests of the canary in earlier steps

	spoke    [kinds][]uint8 // by client, the step of its last bad outcome
	tallies  [kinds]analysis.Tally
	tables   [kinds][]analysis.Events // for the judge that ends steps
	evidence [checks]analysis.Evidence
	breaker  analysis.Breaker

	past  analysis.Past
	tick  analysis.Histogram
	edges [2]time.Duration // by version
}

func newRelease(s scenario, w *world, rng *rand.Rand) *release {
	r := &release{s: s, w: w, flows: newFlows(s, rng), rng: rng, begins: []float64{0}}
	for c, t := range w.traffic {
		for step, weight := range weights {
			if uint32(r.flows.hash[c]) < weight {
				r.reach[step] += t
			}
		}
	}
	for k := range r.spoke {
		r.spoke[k] = make([]uint8, s.clients)
	}
	r.breaker.Rule = analysis.BreakerRuleFor(s.stableRate(), 5)
	r.tick = analysis.Histogram{First: w.cutIndex, Counts: make([]uint64, 80)}
	return r
}

// run goes through the ramp until the canary is taken back or all steps are over.
func (r *release) run() result {
	length := r.s.deadline
	if length == 0 {
		length = rampSeconds()
	}
	var again []outcome // retries that are due, in order
	out := stream(r.s, r.w, length, false, r.rng)
	for len(out) > 0 || len(again) > 0 {
		var o outcome
		if len(again) > 0 && (len(out) == 0 || again[0].at < out[0].at) {
			o, again = again[0], again[1:]
		} else {
			o, out = out[0], out[1:]
		}
		if r.pass(min(o.at, length)); r.over || o.at >= length {
			break
		}
		if !r.book(o) {
			continue
		}
		again = merge(again, retries(r.s, o, r.rng))
		if r.breaker.Tripped() {
			return result{byBreaker, r.requests[canary], r.now}
		}
		if analysis.Rejects(r.judgedBy(), falseAlarm) {
			return result{r.strongest(), r.requests[canary], o.at}
		}
	}
	if r.pass(length); r.over {
		return result{tookAll, r.requests[canary], r.now}
	}
	return result{tooLong, r.requests[canary], r.now}
}

// judgedBy is the evidence of the checks that the release has: where the judge
// ends the steps, only those that compare. (An absolute one holds every step on
// until it can tell, which says nothing of the others.)
func (r *release) judgedBy() []analysis.Evidence {
	if r.s.deadline > 0 {
		return r.evidence[:absolute]
	}
	return r.evidence[:]
}

func (r *release) strongest() end {
	best, by := math.Inf(-1), tookAll
	for i, e := range r.judgedBy() {
		if e.Log > best {
			best, by = e.Log, [checks]end{byErrors, byLatency, byLimit}[i]
		}
	}
	return by
}

// merge puts b, which is in order, into a.
func merge(a, b []outcome) []outcome {
	for _, o := range b {
		i := len(a)
		for i > 0 && a[i-1].at > o.at {
			i--
		}
		a = slices.Insert(a, i, o)
	}
	return a
}

// pass lets time go by in ticks of a second. Steps begin with one.
func (r *release) pass(until float64) {
	for next := math.Floor(r.now) + 1; next <= until && !r.over; next++ {
		r.serve(next)
		r.look()
		if step := r.step(); next >= r.begins[step]+holds[step] && r.mayEnd() {
			if step == len(holds)-1 {
				r.over = true
				return
			}
			r.begins = append(r.begins, next)
			r.before = r.requests[canary]
		}
	}
}

// step is the one that the release is in, from 0.
func (r *release) step() int { return len(r.begins) - 1 }

// mayEnd asks the judge, if it has a say.
func (r *release) mayEnd() bool {
	return r.s.deadline == 0 || len(r.judge().Waiting) == 0
}

// judge looks at the release as the daemon does.
func (r *release) judge() analysis.Judgement {
	step, next := r.step(), 1.0
	if step+1 < len(weights) {
		next = float64(weights[step+1]) / 10_000
	}
	rate := func(v int) analysis.Rate {
		return analysis.Rate{Requests: r.requests[v], Bad: r.errors[v], Clients: r.erring[v]}
	}
	all := func(v int) analysis.Rate { return analysis.Rate{Requests: r.requests[v]} }
	return analysis.Judge(analysis.Observation{
		Step: step + 1, Canary: rate(canary), Stable: rate(stable), StepRequests: r.requests[canary] - r.before,
		ByCheck: map[string]analysis.Data{
			"errors": {Events: r.tables[failed]},
			"p99": {
				Events: r.tables[slow], Canary: all(canary), Stable: all(stable),
				StableEdge: r.edges[stable], CanaryEdge: r.edges[canary],
			},
		},
	}, analysis.Rules{
		Checks: []analysis.Check{
			{Name: "errors", Kind: analysis.CompareErrors},
			{Name: "p99", Kind: analysis.CompareLatency, Quantile: latencyQuantile, Tolerance: tolerance},
		},
		FalseAlarm: falseAlarm, MaxImpact: maxImpact, MinRequests: r.s.minRequests, NextWeight: next,
	})
}

// serve counts the requests that went well since.
func (r *release) serve(until float64) {
	share := r.share((r.now + until) / 2)
	for v, part := range [2]float64{1 - share, share} {
		n := poisson(r.s.perSecond()*part*(until-r.now), r.rng)
		r.requests[v] += n
		r.breaker.Succeed(v == canary, n)
		if v == stable {
			r.tick.Counts[0] += n
		}
	}
	r.now = until
}

// share is the canary's part of the traffic: connections that are kept alive
// have the weight of when they were made.
func (r *release) share(at float64) float64 {
	if r.s.keepAlive == 0 {
		return r.reach[r.step()]
	}
	older := func(age float64) float64 { return math.Exp(-max(age, 0) / r.s.keepAlive) }
	sum := 0.0
	for step, begin := range r.begins {
		end := at
		if step < r.step() {
			end = r.begins[step+1]
		}
		sum += r.reach[step] * (older(at-end) - older(at-begin))
	}
	return sum
}

// look takes the edges from stable's earlier ticks, then adds this one. An edge
// below the cut would have been drawn too seldom to matter.
func (r *release) look() {
	if edge, ok := r.past.Edge(latencyQuantile); ok {
		r.edges[stable] = max(edge, time.Duration(r.w.cuts[stable]*1e9))
		r.edges[canary] = analysis.Tolerated(r.edges[stable], tolerance)
	}
	r.past.Add(r.tick, time.Second)
	clear(r.tick.Counts)
}
