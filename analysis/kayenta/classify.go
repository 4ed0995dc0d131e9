package kayenta

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// noiseScale is the noise's deviation as a share of the constant.
const noiseScale = 1e-5

// classify finds what one metric is.
func classify(m Metric, c Config) Classified {
	out := Classified{Name: m.Name, Groups: m.Groups, Class: Pass, Ratio: 1}
	experiment, control := clean(m.Experiment, m), clean(m.Control, m)
	if len(experiment) == 0 || len(control) == 0 {
		if m.NaN == ReplaceNaN {
			return out
		}
		out.Reason = "Missing data for " + m.Name
		out.Class, out.Critical = Nodata, m.Critical
		if m.MustHaveData && !m.Critical {
			out.Class = NodataFailMetric
		}
		return out
	}
	if slices.Equal(sorted(experiment), sorted(control)) {
		out.Reason = "The Canary and Baseline data are identical"
		return out
	}
	if constant(experiment) && constant(control) {
		// Different constants, or the samples of one value differ in number.
		if experiment[0] == control[0] {
			return out
		}
		noise := rand.New(rand.NewPCG(c.Seed, 0))
		experiment, control = blurred(experiment, noise), blurred(control, noise)
	}

	s, ok := intervalOf(experiment, control, c.Confidence)
	if !ok {
		out.Class, out.Reason = Error, "Metric Classification Failed"
		return out
	}
	out.Ratio = meanRatio(experiment, control)
	effect, neutral := out.Ratio, 1.0
	if m.Effect == CLES {
		effect, neutral = cles(experiment, control), 0.5
	}
	out.Class = direction(m, s, c.Tolerance, effect, neutral)
	if out.Class == Pass {
		return out
	}
	out.Reason = fmt.Sprintf("%s was classified as %s", m.Name, out.Class)
	critical := reaches(effect, orElse(m.CriticalIncrease, neutral))
	if out.Class == Low {
		critical = falls(effect, orElse(m.CriticalDecrease, neutral))
	}
	if m.Critical && critical {
		out.Critical = true
		out.Reason = fmt.Sprintf("The metric %s was classified as %s (Critical)", m.Name, out.Class)
	}
	return out
}

// direction is High, Low or Pass by the interval of the shift and the size of
// the effect.
func direction(m Metric, s shift, tolerance, effect, neutral float64) Class {
	bound := tolerance * math.Abs(s.estimate)
	switch {
	case m.Direction != Decrease && s.low > bound && reaches(effect, orElse(m.AllowedIncrease, neutral)):
		return High
	case m.Direction != Increase && s.high < -bound && falls(effect, orElse(m.AllowedDecrease, neutral)):
		return Low
	}
	return Pass
}

// An effect that has no value holds nothing back.
func reaches(effect, least float64) bool { return math.IsNaN(effect) || effect >= least }
func falls(effect, most float64) bool    { return math.IsNaN(effect) || effect <= most }

// meanRatio is the effect as the ratio of means, NaN where one of them is 0.
func meanRatio(experiment, control []float64) float64 {
	e, c := mean(experiment), mean(control)
	if e == 0 || c == 0 {
		return math.NaN()
	}
	return e / c
}

// cles is the common language effect size (Vargha and Delaney 2000): the chance
// that a sample of the experiment is above one of the control, ties half.
func cles(experiment, control []float64) float64 {
	r := rank(experiment, control, 0)
	m, n := float64(len(experiment)), float64(len(control))
	return (2*r.sum - m*(m+1)) / (2 * n * m)
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

func sorted(values []float64) []float64 { return slices.Sorted(slices.Values(values)) }

func constant(values []float64) bool {
	return !slices.ContainsFunc(values, func(v float64) bool { return v != values[0] })
}

// blurred adds normal noise in proportion to the values.
func blurred(values []float64, noise *rand.Rand) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v + noise.NormFloat64()*math.Abs(v)*noiseScale
	}
	return out
}
