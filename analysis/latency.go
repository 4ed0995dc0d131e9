package analysis

import (
	"math"
	"time"
)

// perDoubling is the resolution of the buckets: schema 3 of a Prometheus native
// histogram has 2^3 for each doubling.
const perDoubling = 8

// A Histogram counts latencies by the buckets of schema 3. Bucket i holds those
// up to 2^((First+i)/8) seconds that are above the bound before; the first also
// holds everything below, the last everything above.
type Histogram struct {
	First  int
	Counts []uint64
}

// Total is the number of latencies in h.
func (h Histogram) Total() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Quantile returns the q-quantile, 0 to 1, off by at most one bucket, 9 %, and
// false when h is empty. Inside a bucket it interpolates on the logarithm. In
// the last bucket, which has no upper bound, it is the lower bound.
func (h Histogram) Quantile(q float64) (time.Duration, bool) {
	total := h.Total()
	if total == 0 || math.IsNaN(q) {
		return 0, false
	}
	rank := min(max(q, 0), 1) * float64(total)
	last := len(h.Counts) - 1
	below := 0.0
	for i, c := range h.Counts[:last] {
		if n := float64(c); n > 0 {
			if below+n >= rank {
				at := float64(h.First+i) + (rank-below)/n - 1
				return time.Duration(math.Exp2(at/perDoubling) * 1e9), true
			}
			below += n
		}
	}
	return bound(h.First + last - 1), true
}

// Above counts the latencies that are longer than d for sure: those of the
// buckets that begin at d or beyond it. Where d is a bound it is exact.
func (h Histogram) Above(d time.Duration) uint64 {
	var n uint64
	for i := len(h.Counts) - 1; i > 0 && bound(h.First+i-1) >= d; i-- {
		n += h.Counts[i]
	}
	return n
}

// bound is the upper bound of the bucket with an index of schema 3, in whole
// nanoseconds: a latency is above the bound exactly when it is above this.
func bound(index int) time.Duration {
	eighth := index & (perDoubling - 1)
	s := math.Ldexp(math.Exp2(float64(eighth)/perDoubling), (index-eighth)/perDoubling)
	return time.Duration(math.Floor(s * 1e9))
}

const (
	// pastDecay is the time after which stable's past weighs 1/e.
	pastDecay = 60 * time.Second
	// pastEnough requests of stable make an edge. Decay stops here: a service
	// with few requests is compared with the last thousand of them.
	pastEnough = 1000
)

// Past is what is remembered of stable's latencies, tick by tick. An edge that
// is read before a tick is added depends on earlier ticks only: the requests
// that are judged by it must have no say in it. The zero Past is empty.
type Past struct {
	first  int
	counts []float64
}

// Add forgets some of what was and adds a tick's latencies of stable. passed is
// the time since the tick before.
func (p *Past) Add(tick Histogram, passed time.Duration) {
	if len(p.counts) != len(tick.Counts) || p.first != tick.First {
		p.first, p.counts = tick.First, make([]float64, len(tick.Counts))
	}
	keep := 1.0
	if total := p.Requests(); total > pastEnough {
		keep = max(math.Exp(-passed.Seconds()/pastDecay.Seconds()), pastEnough/total)
	}
	for i, c := range tick.Counts {
		p.counts[i] = p.counts[i]*keep + float64(c)
	}
}

// Requests is how many requests the past is worth.
func (p *Past) Requests() float64 {
	sum := 0.0
	for _, c := range p.counts {
		sum += c
	}
	return sum
}

// Edge returns the lowest bound of a bucket above which at most 1 − q of stable
// is; false when too little of stable is known, or its latencies are beyond the
// last bound. A request of stable is slow when it took longer.
func (p *Past) Edge(q float64) (time.Duration, bool) {
	total := p.Requests()
	if total < pastEnough*(1-1e-9) {
		return 0, false
	}
	allowed := (1 - q) * total * (1 + 1e-9) // 1 − 0.9 is a little below 0.1
	above := 0.0
	for i := len(p.counts) - 1; i >= 0; i-- {
		above += p.counts[i]
		if above <= allowed {
			continue
		}
		if i == len(p.counts)-1 {
			return 0, false
		}
		return bound(p.first + i), true
	}
	return bound(p.first), true
}

// Tolerated returns edge·(1 + tolerance), rounded down to nanoseconds, with the
// tolerance in whole basis points: a request of the canary is slow when it took
// longer.
func Tolerated(edge time.Duration, tolerance float64) time.Duration {
	const unit = 10_000
	basis := time.Duration(math.Round(tolerance * unit))
	return edge + edge/unit*basis + edge%unit*basis/unit
}
