package main

import (
	"maps"
	"math"
	"slices"
)

// Rounds are values by the round that they were measured in. A round in which
// the measurement failed has none.
type Rounds map[int]float64

// Figure sums values up.
type Figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

func summarize(values []float64) Figure {
	if len(values) == 0 {
		return Figure{}
	}
	s := slices.Sorted(slices.Values(values))
	return Figure{quantile(s, 0.5), s[0], s[len(s)-1], len(s)}
}

// quantile reads sorted values, and between two of them in proportion.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// values returns them in the order of the rounds.
func (r Rounds) values() []float64 {
	out := make([]float64, 0, len(r))
	for _, round := range slices.Sorted(maps.Keys(r)) {
		out = append(out, r[round])
	}
	return out
}

// pair divides by the floor's value of the same round: what slows the machine
// down for a while slows both.
func pair(r, floor Rounds) Rounds {
	out := Rounds{}
	for round, v := range r {
		if f, ok := floor[round]; ok && f > 0 {
			out[round] = v / f
		}
	}
	return out
}

// best is the best of the rounds, 0 where there are none.
func (r Rounds) best(higher bool) float64 {
	switch {
	case len(r) == 0:
		return 0
	case higher:
		return slices.Max(r.values())
	}
	return slices.Min(r.values())
}

// slope is how much y grows with each x, by least squares.
func slope(x, y []float64) float64 {
	var mx, my float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(y))
	}
	var xy, xx float64
	for i := range x {
		xy += (x[i] - mx) * (y[i] - my)
		xx += (x[i] - mx) * (x[i] - mx)
	}
	return xy / xx
}
