package analysis

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestMayHideKnown(t *testing.T) {
	tests := []struct{ n, x, want, digit float64 }{
		{100, 0, .033443, 1e-6},
		{300, 0, .011282, 1e-6},
		{10_000, 10, .002257, 1e-6},
		{0, 0, 1, 0},
		{5, 5, 1, 0},
		{5, 7, 1, 0}, // more errors than requests: a race of counters
	}
	for _, tt := range tests {
		near(t, "MayHide", MayHide(tt.n, tt.x), tt.want, tt.digit)
	}
}

func TestMayHideOfABillion(t *testing.T) {
	const n = 1e9
	if got := MayHide(n, 0); !(got > 3/n && got < 4/n) {
		t.Errorf("MayHide(10^9, 0) = %v, want about 3.4e-9", got)
	}
	// However many requests: the mixture is no closer to p than half of it, so
	// the bound ends at 2·ln 2 of the rate.
	if got := MayHide(n, 1e6); !(got > 1e-3*2*math.Ln2-1e-6 && got < 1e-3*2*math.Ln2+1e-5) {
		t.Errorf("MayHide(10^9, 10^6) = %v, want a little above 0.00139", got)
	}
	if got := MayHide(n, n-1); !(got > .999999 && got <= 1) {
		t.Errorf("MayHide(10^9, 10^9 - 1) = %v, want almost 1", got)
	}
}

// It is above the observed rate, falls with more requests, grows with more
// errors, and is where the likelihoods are 20 apart.
func TestMayHideIsABound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := float64(rapid.Int64Range(2, 1e9).Draw(t, "n") >> rapid.IntRange(0, 28).Draw(t, "shift"))
		x := math.Floor(n * rapid.Float64Range(0, .9).Draw(t, "rate"))
		if x >= n {
			return
		}
		u := MayHide(n, x)
		if u <= x/n || u > 1 {
			t.Fatalf("MayHide(%v, %v) = %v, the rate itself is %v", n, x, u, x/n)
		}
		if less := MayHide(2*n, x); less > u {
			t.Fatalf("MayHide(%v, %v) = %v, with twice the requests %v", n, x, u, less)
		}
		if more := MayHide(n, x+1); more < u {
			t.Fatalf("MayHide(%v, %v) = %v, with an error more %v", n, x, u, more)
		}
	})
}

func TestAbsoluteEvidence(t *testing.T) {
	tests := []struct {
		name        string
		n, x, limit float64
		want        float64
		digit       float64
	}{
		// mean of r^5 · ((1 − r/100)/(0.99))^95 over 1.5, 2, 3, 5, 10
		{"5 of 100 at 1 %", 100, 5, .01, math.Log(absoluteByHand(100, 5, .01)), 1e-9},
		{"nothing yet", 0, 0, .01, 0, 0},
		{"ratios that would be no rate are left out", 20, 20, .3, math.Log((math.Pow(1.5, 20) + math.Pow(2, 20) + math.Pow(3, 20)) / 3), 1e-9},
		{"no ratio is left", 20, 20, .9, 0, 0},
		{"none may fail", 10, 2, 0, math.Log((2.25 + 4 + 9 + 25 + 100) / 5), 1e-9},
	}
	for _, tt := range tests {
		near(t, tt.name, AbsoluteLog(tt.n, tt.x, tt.limit), tt.want, tt.digit)
	}
	if got := AbsoluteLog(1e7, 1e7, .01); math.IsInf(got, 0) || got < 1e6 {
		t.Errorf("ten million errors: ln E = %v", got)
	}
}

func absoluteByHand(n, x, limit float64) float64 {
	sum := 0.0
	for _, r := range []float64{1.5, 2, 3, 5, 10} {
		sum += math.Pow(r, x) * math.Pow((1-r*limit)/(1-limit), n-x)
	}
	return sum / 5
}

// A canary at the limit exactly: the mean over all outcomes is 1.
func TestAbsoluteEvidenceHasExpectationOne(t *testing.T) {
	const n, limit = 60, 0.02
	sum := 0.0
	for x := 0.0; x <= n; x++ {
		lg := func(v float64) float64 { l, _ := math.Lgamma(v + 1); return l }
		p := math.Exp(lg(n) - lg(x) - lg(n-x) + x*math.Log(limit) + (n-x)*math.Log1p(-limit))
		sum += p * EValue(AbsoluteLog(n, x, limit))
	}
	near(t, "the mean", sum, 1, 1e-9)
}

// A client that retried nine times is one witness of ten requests.
func TestRetriesAreOneWitness(t *testing.T) {
	r := Rate{Requests: 1000, Bad: 20, Clients: 2}
	near(t, "may hide", r.mayHide(), MayHide(100, 2), 0)
	unknown := Rate{Requests: 1000, Bad: 20}
	near(t, "may hide, clients unknown", unknown.mayHide(), MayHide(1000, 20), 0)
}

func TestSampleRatio(t *testing.T) {
	near(t, "60 of 2,000 at 5 %", SampleRatioLog([]Arrivals{{at(5), 60, 1940}}), 5.760246, 1e-6)
	a, b := Arrivals{at(5), 60, 1940}, Arrivals{at(25), 300, 700}
	near(t, "epochs multiply", SampleRatioLog([]Arrivals{a, b}),
		SampleRatioLog([]Arrivals{a})+SampleRatioLog([]Arrivals{b}), 1e-9)
	if got := SampleRatioLog([]Arrivals{{at(5), 50_000, 950_000}}); got > 0 {
		t.Errorf("a million clients split as asked: ln E = %v", got)
	}
	for _, canary := range []uint64{20_000, 80_000} {
		if got := SampleRatioLog([]Arrivals{{at(5), canary, 1_000_000 - canary}}); got < math.Log(ratioLoud) {
			t.Errorf("%d of a million at 5 %%: ln E = %v, must be loud", canary, got)
		}
	}
	if got := SampleRatioLog([]Arrivals{{Weights{0, 10_000}, 0, 500}}); got != 0 {
		t.Errorf("from before the release: %v", got)
	}
}
