package main

import (
	"math"
	"math/rand/v2"
	"testing"

	"siskin.dev/siskin/analysis"
)

// A small version of the simulation: its bars are wide, and its seed is fixed.
const testSeed = 20

func TestAlikeIsSeldomRejected(t *testing.T) {
	t.Logf("seed %d", testSeed)
	const releases = 120
	for _, o := range simulateAll(alike(), releases, testSeed) {
		if back := o.takenBack(); back > 5 {
			t.Errorf("%s: %.1f %% taken back", o.name, back)
		}
	}
}

func TestWorseIsRejected(t *testing.T) {
	t.Logf("seed %d", testSeed)
	atMost := map[string]uint64{"5× errors": 8000, "20× errors": 2000, "+100 % p99": 3000, "+50 % p99": 8000}
	for _, o := range simulateAll(different(), 30, testSeed) {
		limit, ok := atMost[o.name]
		if !ok {
			continue
		}
		if median, missed, ok := medianOf(o.requests()); !ok || median > limit {
			t.Errorf("%s: median %d canary requests (%.0f %% missed), want %d at most", o.name, median, 100*missed, limit)
		}
	}
}

func TestBetterIsNeverRejected(t *testing.T) {
	t.Logf("seed %d", testSeed)
	for _, o := range simulateAll(better(), 40, testSeed) {
		if back := o.takenBack(); back > 0 {
			t.Errorf("%s: %.1f %% taken back", o.name, back)
		}
	}
}

// The evidence that the simulation adds up event by event is the judge's own.
func TestSimulationAgreesWithTheJudge(t *testing.T) {
	t.Logf("seed %d", testSeed)
	s := scenario{name: "worse", clients: 10_000, zipf: true, errors: 3, deadline: 900, minRequests: 100}
	rng := rand.New(rand.NewPCG(testSeed, 0))
	w := newWorld(s, rng)
	for range 20 {
		r := newRelease(s, w, rng)
		got := r.run()
		j := r.judge()
		for i, name := range []string{"errors", "p99"} {
			// Events of stable after the last of the canary are not weighed yet.
			own := r.tallies[[]kind{failed, slow}[i]].Log(r.step() + 1)
			if f := j.Findings[i]; f.Check != name || math.Abs(math.Log(f.Evidence)-own) > 1e-9 {
				t.Errorf("%s: the judge has %v, the simulation %v", name, f.Evidence, math.Exp(own))
			}
		}
		if judged := got.end == byErrors || got.end == byLatency; judged != (j.Verdict == analysis.Fail) {
			t.Errorf("the simulation ended by %q, the judge says %s: %s", got.end, j.Verdict, j.Reason)
		}
	}
}

// The same seed has the same result, on however many CPUs.
func TestSimulationIsSeeded(t *testing.T) {
	s := alike()[2]
	a, b := simulate(s, 55, 7), simulate(s, 60, 7)
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("release %d: %+v, then %+v", i, a[i], b[i])
		}
	}
}

func TestSampler(t *testing.T) {
	t.Logf("seed %d", testSeed)
	rng := rand.New(rand.NewPCG(testSeed, 0))
	mass := []float64{5, 0, 1, 2, .5, 1.5}
	s := newSampler(mass)
	const n = 200_000
	counts := make([]float64, len(mass))
	for range n {
		counts[s.draw(rng)]++
	}
	for i, m := range mass {
		want := m / 10 * n
		if math.Abs(counts[i]-want) > 5*math.Sqrt(want)+1e-9 {
			t.Errorf("mass %v was drawn %v times of %d", m, counts[i], n)
		}
	}
}

func TestFlowsKeepTheirWeight(t *testing.T) {
	t.Logf("seed %d", testSeed)
	rng := rand.New(rand.NewPCG(testSeed, 0))
	f := newFlows(scenario{clients: 1, keepAlive: 120}, rng)
	made, older := math.Inf(-1), 0
	for at := 0.0; at < 100_000; at += rng.ExpFloat64() * 30 {
		m := f.made(0, at, rng)
		if m > at || m < made {
			t.Fatalf("at %v the connection was made at %v, the one before at %v", at, m, made)
		}
		if m == made {
			older++
		}
		made = m
	}
	if older == 0 {
		t.Error("no connection was used twice")
	}
	r := &release{begins: []float64{0, 30, 150, 450}}
	for at, want := range map[float64]analysis.Weights{
		-1: {Stable: 10_000}, 0: {Canary: 100, Stable: 9900}, 30: {Canary: 500, Stable: 9500}, 449: {Canary: 2500, Stable: 7500},
		450: {Canary: 5000, Stable: 5000}, 1e6: {Canary: 5000, Stable: 5000},
	} {
		if got := r.weightsAt(at); got != want {
			t.Errorf("weights of a connection made at %v: %v, want %v", at, got, want)
		}
	}
}
