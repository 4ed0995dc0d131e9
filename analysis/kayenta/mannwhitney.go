package kayenta

import (
	"cmp"
	"math"
	"slices"
)

// shift is how far the experiment lies above the control: the interval that the
// Mann–Whitney test does not reject, and the estimate (Hodges and Lehmann).
type shift struct{ low, high, estimate float64 }

// intervalOf inverts the two-sided test with normal approximation and continuity
// correction, as R's wilcox.test does. It is false where a test has no answer:
// everything is tied.
func intervalOf(x, y []float64, confidence float64) (shift, bool) {
	w := statistic{x, y}
	low, high := slices.Min(x)-slices.Max(y), slices.Max(x)-slices.Min(y)
	z := math.Sqrt2 * math.Erfinv(confidence) // the quantile of (1 + confidence)/2

	atLow, atHigh := w.at(low), w.at(high)
	if math.IsNaN(atLow) || math.IsNaN(atHigh) {
		return shift{}, false
	}
	solve := func(z float64) float64 {
		switch {
		case atLow-z <= 0:
			return low
		case atHigh-z >= 0:
			return high
		}
		return root(func(mu float64) float64 { return w.at(mu) - z }, low, high, atLow-z, atHigh-z)
	}
	return shift{solve(z), solve(-z), solve(0)}, true
}

// statistic is the standardised rank sum of x against y.
type statistic struct{ x, y []float64 }

// at returns W for a shift of x by −mu; it falls as mu grows. NaN where all
// values are tied.
func (s statistic) at(mu float64) float64 {
	n, m := float64(len(s.x)), float64(len(s.y))
	r := rank(s.x, s.y, mu)
	dz := r.sum - n*(n+1)/2 - n*m/2
	sigma := math.Sqrt(n * m / 12 * ((n + m + 1) - r.ties/((n+m)*(n+m-1))))
	if sigma == 0 {
		return math.NaN()
	}
	switch {
	case dz > 0:
		dz -= 0.5
	case dz < 0:
		dz += 0.5
	}
	return dz / sigma
}

// ranked is the sum of the ranks of x among all, and Σ(t³ − t) over the ties.
type ranked struct{ sum, ties float64 }

// rank ranks x − mu and y together; equal values have their mean rank.
func rank(x, y []float64, mu float64) ranked {
	type value struct {
		v   float64
		ofX bool
	}
	all := make([]value, 0, len(x)+len(y))
	for _, v := range x {
		all = append(all, value{v - mu, true})
	}
	for _, v := range y {
		all = append(all, value{v, false})
	}
	slices.SortFunc(all, func(a, b value) int { return cmp.Compare(a.v, b.v) })

	var out ranked
	for from := 0; from < len(all); {
		to, ofX := from, 0.0
		for ; to < len(all) && all[to].v == all[from].v; to++ {
			if all[to].ofX {
				ofX++
			}
		}
		t := float64(to - from)
		out.sum += ofX * (float64(from+1+to) / 2)
		out.ties += t*t*t - t
		from = to
	}
	return out
}
