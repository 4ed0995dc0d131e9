package kayenta

import (
	"math"
	"slices"
)

// clean is what is left of samples after NaNs and outliers.
func clean(values []float64, m Metric) []float64 {
	out := make([]float64, 0, len(values))
	for _, v := range values {
		switch {
		case !math.IsNaN(v):
			out = append(out, v)
		case m.NaN == ReplaceNaN:
			out = append(out, 0)
		}
	}
	if !m.RemoveOutliers || len(out) == 0 {
		return out
	}
	low, high := fences(out, orElse(m.OutlierFactor, 3))
	return slices.DeleteFunc(out, func(v float64) bool { return v < low || v > high })
}

// fences are factor times the interquartile range away from the quartiles, and
// at least as wide as the first and last percentile.
func fences(values []float64, factor float64) (low, high float64) {
	s := sorted(values)
	q1, q3 := percentile(s, 25), percentile(s, 75)
	reach := factor * (q3 - q1)
	return min(percentile(s, 1), q1-reach), max(percentile(s, 99), q3+reach)
}

// percentile is R's type 7: sorted values, and between two of them in
// proportion.
func percentile(sorted []float64, p float64) float64 {
	at := p / 100 * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}
