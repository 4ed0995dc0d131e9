package main

import (
	"math"
	"math/rand/v2"
)

// quantile of latency that the canary is compared by, and the slack it has.
const (
	latencyQuantile = 0.99
	tolerance       = 0.2
)

// world is a population of clients. Several releases share one; which clients
// get the canary is drawn anew for each.
type world struct {
	traffic []float64 // by client, adds up to 1
	any     sampler   // a client by its traffic
	errors  [2]sampler
	slow    [2]sampler   // only what is slower than the cut
	slowIn  []float64    // a client's own deviation of latency
	tails   [2][]float64 // a client's chance to be slower than the cut
	// cut is the bound of a bucket that a few percent of stable's requests
	// exceed: no edge is below it, so faster ones need not be simulated. cuts
	// are those of both versions, the canary's with its tolerance.
	cutIndex int
	cuts     [2]float64
	factor   [2]float64 // of latency
}

// stable and canary index what there is of each version.
const (
	stable = iota
	canary
)

func newWorld(s scenario, rng *rand.Rand) *world {
	w := &world{traffic: make([]float64, s.clients), slowIn: make([]float64, s.clients), factor: [2]float64{1, s.latencyFactor()}}
	sum := 0.0
	for c := range w.traffic {
		w.traffic[c] = 1
		if s.zipf {
			w.traffic[c] = 1 / float64(c+1)
		}
		sum += w.traffic[c]
	}
	var failing, slower [2][]float64
	for v := range failing {
		failing[v], slower[v] = make([]float64, s.clients), make([]float64, s.clients)
		w.tails[v] = make([]float64, s.clients)
	}
	for c := range w.traffic {
		w.traffic[c] /= sum
		w.slowIn[c] = amongClients * rng.NormFloat64()
		rate := s.stableRate()
		if rng.Float64() < s.bad {
			rate = s.badRate
		}
		failing[stable][c] = w.traffic[c] * rate
		failing[canary][c] = w.traffic[c] * min(rate*s.canaryFactor(), 1)
	}
	w.findCut()
	for c := range w.traffic {
		for v := range slower {
			w.tails[v][c] = tail(w.deviation(c, v))
			slower[v][c] = w.traffic[c] * w.tails[v][c]
		}
	}
	w.any = newSampler(w.traffic)
	for v := range failing {
		w.errors[v], w.slow[v] = newSampler(failing[v]), newSampler(slower[v])
	}
	return w
}

// findCut looks for the highest bound with 3 % of stable or more above it.
func (w *world) findCut() {
	for index := 0; ; index-- {
		w.cutIndex = index
		cut := bucketBound(index)
		w.cuts = [2]float64{cut, cut * (1 + tolerance)}
		above := 0.0
		for c, t := range w.traffic {
			above += t * tail(w.deviation(c, stable))
		}
		if above >= 3*(1-latencyQuantile) {
			return
		}
	}
}

// deviation is how far above its client's usual a request must be to be above
// the cut.
func (w *world) deviation(client, version int) float64 {
	return (math.Log(w.cuts[version]/(median*w.factor[version])) - w.slowIn[client]) / ofOne
}

// latency draws one above the cut, in seconds.
func (w *world) latency(client, version int, rng *rand.Rand) float64 {
	beyond := math.Sqrt2 * math.Erfcinv(2*(1-rng.Float64())*w.tails[version][client])
	return median * w.factor[version] * math.Exp(w.slowIn[client]+ofOne*beyond)
}

// tail is the chance of a normal deviation above x.
func tail(x float64) float64 { return math.Erfc(x/math.Sqrt2) / 2 }

func bucketBound(index int) float64 { return math.Exp2(float64(index) / 8) }

// bucketOf is the bucket of a latency, counted from the one that ends at the cut.
func (w *world) bucketOf(seconds float64) int {
	return int(math.Ceil(8*math.Log2(seconds))) - w.cutIndex
}

// sampler draws clients in proportion to their mass (Walker's alias method).
type sampler struct {
	mass  float64
	keep  []float64
	alias []int32
}

func newSampler(mass []float64) sampler {
	s := sampler{keep: make([]float64, len(mass)), alias: make([]int32, len(mass))}
	for _, m := range mass {
		s.mass += m
	}
	var small, large []int32
	for i, m := range mass {
		s.keep[i] = m / s.mass * float64(len(mass))
		if s.keep[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		a, b := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		s.alias[a] = b
		if s.keep[b] -= 1 - s.keep[a]; s.keep[b] < 1 {
			large, small = large[:len(large)-1], append(small, b)
		}
	}
	for _, i := range append(small, large...) { // 1 but for rounding
		s.keep[i] = 1
	}
	return s
}

func (s *sampler) draw(rng *rand.Rand) int {
	i := rng.IntN(len(s.keep))
	if rng.Float64() < s.keep[i] {
		return i
	}
	return int(s.alias[i])
}

// poisson draws how many of something there are; from 50 on by its normal limit.
func poisson(mean float64, rng *rand.Rand) uint64 {
	if mean > 50 {
		return uint64(max(0, math.Round(mean+math.Sqrt(mean)*rng.NormFloat64())))
	}
	n, p := uint64(0), rng.Float64()
	for limit := math.Exp(-mean); p > limit; n++ {
		p *= rng.Float64()
	}
	return n
}
