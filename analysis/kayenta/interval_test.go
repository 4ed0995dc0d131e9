package kayenta

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Each end of the interval is where the staircase W crosses its level, to within
// the tolerance, or the end of what was searched.
func TestIntervalIsWhereTheTestTurns(t *testing.T) {
	samples := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) float64 {
		// Few different values: ties are what is hard.
		return float64(rapid.IntRange(-40, 40).Draw(t, "v")) / 4
	}), 1, 25)
	rapid.Check(t, func(t *rapid.T) {
		x, y := samples.Draw(t, "x"), samples.Draw(t, "y")
		confidence := rapid.SampledFrom([]float64{.5, .9, .95, .98, .999}).Draw(t, "confidence")
		w := statistic{x, y}
		s, ok := intervalOf(x, y, confidence)
		if !ok {
			if !constant(x) || !constant(y) {
				t.Fatal("no interval, but not all is tied")
			}
			return
		}
		low, high := slices.Min(x)-slices.Max(y), slices.Max(x)-slices.Min(y)
		z := math.Sqrt2 * math.Erfinv(confidence)
		for _, end := range []struct {
			name      string
			at, level float64
		}{{"low", s.low, z}, {"estimate", s.estimate, 0}, {"high", s.high, -z}} {
			before, after := w.at(end.at-2*rootTolerance), w.at(end.at+2*rootTolerance)
			if end.at > low+rootTolerance && before < end.level || end.at < high-rootTolerance && after > end.level {
				t.Fatalf("%s %v: W goes from %v to %v there, its level is %v", end.name, end.at, before, after, end.level)
			}
		}
		if s.low > s.estimate+2*rootTolerance || s.estimate > s.high+2*rootTolerance {
			t.Fatalf("not in order: %+v", s)
		}
	})
}
