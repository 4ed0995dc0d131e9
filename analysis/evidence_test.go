package analysis

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// near checks a number to the last digit that is written down.
func near(t *testing.T, what string, got, want, digit float64) {
	t.Helper()
	if !(math.Abs(got-want) <= digit/2*(1+1e-9)) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func at(percent uint32) Weights { return Weights{Canary: 100 * percent, Stable: 10_000 - 100*percent} }

// first is an event table's row of clients that were silent before.
func first(w Weights, step int, canary, of uint64) Events {
	return Events{Weights: w, Step: step, Canary: canary, Stable: of - canary}
}

func tally(table ...Events) *Tally {
	var t Tally
	for _, e := range table {
		t.Add(e)
	}
	return &t
}

func TestEvidenceKnown(t *testing.T) {
	three := tally(first(at(5), 1, 3, 3))
	near(t, "3 of 3 at 5 %: ln E_0", three.LogStart(1), 6.795534, 1e-6)
	near(t, "3 of 3 at 5 %: E", EValue(three.Log(1)), 447.423, 1e-3)

	ramp := tally(first(at(1), 1, 1, 4), first(at(5), 2, 4, 10))
	near(t, "two epochs: E_0", EValue(ramp.LogStart(1)), 612.251, 1e-3)
	near(t, "two epochs: E_1", EValue(ramp.LogStart(2)), 84.6304, 1e-4)
	near(t, "two epochs: E", EValue(ramp.Log(2)), 320.564, 1e-3)

	near(t, "0 of 30 at 25 %", tally(first(at(25), 1, 0, 30)).LogStart(1), -5.437713, 1e-6)
	near(t, "10 of 40 at 25 %", tally(first(at(25), 1, 10, 40)).LogStart(1), -2.361369, 1e-6)
}

func TestReleaseIsTheMeanOfItsChecks(t *testing.T) {
	checks := []Evidence{{math.Log(320.564), 5}, {math.Log(0.8), 0}, {math.Log(1.1), 2}}
	near(t, "mean", EValue(ReleaseLog(checks)), 107.488, 1e-3)
	if !Rejects(checks, 0.01) {
		t.Error("107 ≥ 100 from 5 clients does not reject at 1 %")
	}
	if Rejects(checks, 0.009) {
		t.Error("107 < 111 rejects at 0.9 %")
	}
	checks[0].Clients = 2
	if Rejects(checks, 0.01) {
		t.Error("two clients are enough to reject")
	}
	if got := ReleaseLog(nil); got != 0 {
		t.Errorf("a release without checks has evidence %v", got)
	}
}

func TestEvidenceOfNothing(t *testing.T) {
	tests := []struct {
		name  string
		table []Events
	}{
		{"no event", nil},
		{"from before the release", []Events{{Weights: Weights{0, 10_000}, Step: 1, Stable: 50}}},
		{"all on the canary", []Events{{Weights: Weights{10_000, 0}, Step: 1, Canary: 50}}},
		{"no weights", []Events{{Step: 1, Canary: 5}}},
		{"spoke in this step before", []Events{{Weights: at(5), Prev: 2, Step: 2, Canary: 9}}},
	}
	for _, tt := range tests {
		for step := 1; step <= 4; step++ {
			if got := Tallied(tt.table, step); math.Abs(got.Log) > 1e-12 || got.Clients != 0 {
				t.Errorf("%s: step %d: evidence %v", tt.name, step, got)
			}
		}
	}
}

// A client that spoke in step 1 speaks again in step 3, but only to the
// processes that began after step 1.
func TestEvidenceOfLaterSteps(t *testing.T) {
	again := tally(Events{Weights: at(25), Prev: 1, Step: 3, Canary: 3})
	for start, heard := range map[int]bool{1: false, 2: true, 3: true, 4: false} {
		if got := again.LogStart(start) != 0; got != heard {
			t.Errorf("the process from step %d on heard it: %v, want %v", start, got, heard)
		}
	}
	if again.Clients() != 0 {
		t.Errorf("%d distinct clients, want 0: it was counted when it first spoke", again.Clients())
	}
}

func TestHugeCountsDoNotOverflow(t *testing.T) {
	const many = 10_000_000
	broken := Tallied([]Events{first(at(50), 1, many, many)}, 1)
	if math.IsInf(broken.Log, 0) || math.IsNaN(broken.Log) || broken.Log < 1e6 {
		t.Errorf("a broken canary: ln E = %v", broken.Log)
	}
	if e := EValue(broken.Log); e != math.MaxFloat64 {
		t.Errorf("its e-value is %v, want the largest number", e)
	}
	good := Tallied([]Events{first(at(50), 1, many/10, many)}, 1)
	near(t, "a good canary: ln E", good.Log, math.Log(.5), 1e-9)
	if p := PValue(good.Log); p != 1 {
		t.Errorf("p = %v, want 1", p)
	}
	near(t, "p of evidence 200", PValue(math.Log(200)), 0.005, 1e-12)
}

// The order and grouping of the rows do not matter.
func TestEvidenceIsASum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table []Events
		for range rapid.IntRange(1, 12).Draw(t, "rows") {
			step := rapid.IntRange(1, 5).Draw(t, "step")
			table = append(table, Events{
				Weights: at(uint32(rapid.IntRange(0, 100).Draw(t, "weight"))), Step: step,
				Prev:   rapid.IntRange(0, step).Draw(t, "prev"),
				Canary: uint64(rapid.IntRange(0, 50).Draw(t, "canary")),
				Stable: uint64(rapid.IntRange(0, 50).Draw(t, "stable")),
			})
		}
		want := Tallied(table, 5)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)).
			Shuffle(len(table), func(i, k int) { table[i], table[k] = table[k], table[i] })
		var split []Events
		for _, e := range table {
			half := e
			half.Canary, half.Stable = e.Canary/2, e.Stable/2
			e.Canary, e.Stable = e.Canary-half.Canary, e.Stable-half.Stable
			split = append(split, half, e)
		}
		if got := Tallied(split, 5); math.Abs(got.Log-want.Log) > 1e-9*(1+math.Abs(want.Log)) || got.Clients != want.Clients {
			t.Fatalf("split and shuffled %v, whole %v", got, want)
		}
	})
}

// By the definition of an e-value: for a canary as good as stable, whatever its
// weight and number of events, the mean of E over all outcomes is 1 or less.
func TestEvidenceHasExpectationOne(t *testing.T) {
	for _, percent := range []uint32{1, 5, 25, 50} {
		for _, n := range []uint64{1, 5, 40} {
			share := float64(percent) / 100
			sum := 0.0
			for c := uint64(0); c <= n; c++ {
				lg := func(v uint64) float64 { l, _ := math.Lgamma(float64(v) + 1); return l }
				p := math.Exp(lg(n) - lg(c) - lg(n-c) + float64(c)*math.Log(share) + float64(n-c)*math.Log1p(-share))
				sum += p * EValue(tally(first(at(percent), 1, c, n)).Log(1))
			}
			near(t, "the mean", sum, 1, 1e-9)
		}
	}
}
