package metrics

import (
	"math"
	"math/bits"

	"github.com/prometheus/client_golang/prometheus"

	"siskin.dev/siskin/bpf"
)

// perDoubling is the resolution of the kernel's buckets: schema 3 of a
// Prometheus native histogram has 2^3 of them for each doubling.
const perDoubling = 8

// BucketIndex returns the index in a bpf.Histogram of a duration in
// nanoseconds. It computes what the kernel programs compute, without floating
// point: the duration in units of 2^-30 s (clamped to 2^40 ns, 18 minutes),
// its power of two, then the place of its mantissa among the eighths.
//
// Bucket i holds durations in (Bound(i-1), Bound(i)]; the first one also holds
// everything below, the last one everything above.
func BucketIndex(ns uint64) int {
	units := (min(ns, 1<<40) * 9007199) >> 23 // 2^30 / 10^9 = 9007199 / 2^23
	exponent := 63 - bits.LeadingZeros64(units)
	mantissa := units << (63 - exponent)
	index := perDoubling * (exponent - 30)
	for _, threshold := range eighths() {
		if threshold < mantissa {
			index++
		}
	}
	if mantissa > 1<<63 {
		index++
	}
	return min(max(index-bpf.HistogramMin, 0), bpf.HistogramBuckets-1)
}

// eighths are 2^(63+j/8) for j = 1 to 7, rounded down: a whole number is above
// the bound exactly when it is above this.
func eighths() [7]uint64 {
	return [7]uint64{
		0x8b95c1e3ea8bd6e6, 0x9837f0518db8a96f, 0xa5fed6a9b15138ea,
		0xb504f333f9de6484, 0xc5672a115506dadd, 0xd744fccad69d6af4,
		0xeac0c6e7dd24392e,
	}
}

// Bound returns the upper bound of bucket i in seconds: an exact power of two
// for every eighth bucket.
func Bound(i int) float64 {
	index := i + bpf.HistogramMin
	eighth := index & (perDoubling - 1)
	return math.Ldexp(math.Exp2(float64(eighth)/perDoubling), (index-eighth)/perDoubling)
}

// Count returns the number of durations in h.
func Count(h *bpf.Histogram) uint64 {
	var n uint64
	for _, b := range h.Bucket {
		n += b
	}
	return n
}

// Quantile returns the q-quantile (0 to 1) of h in seconds, and false when h
// is empty. Inside a bucket it interpolates on the logarithm, so it is off by
// at most one bucket, 9 %. A quantile in the last bucket, which has no upper
// bound, is its lower bound: at least so much.
func Quantile(h *bpf.Histogram, q float64) (seconds float64, ok bool) {
	total := Count(h)
	if total == 0 || math.IsNaN(q) {
		return 0, false
	}
	rank := min(max(q, 0), 1) * float64(total)
	below := 0.0
	for i, n := range h.Bucket {
		if n == 0 {
			continue
		}
		if below+float64(n) < rank {
			below += float64(n)
			continue
		}
		if i == bpf.HistogramBuckets-1 {
			break
		}
		part := (rank - below) / float64(n)
		return Bound(i) * math.Exp2((part-1)/perDoubling), true
	}
	return Bound(bpf.HistogramBuckets - 2), true
}

// Powers of two in seconds that bound the classic histograms: every doubling
// from 15 µs to 64 s. Each is a bound of the kernel's buckets as well, so the
// classic form is exact.
const (
	classicMin = -16
	classicMax = 6
)

// classic returns the cumulative counts of h by upper bound in seconds. The
// kernel's last bucket is in none of them, only in the total.
func classic(h *bpf.Histogram) map[float64]uint64 {
	out := make(map[float64]uint64, classicMax-classicMin+1)
	var below uint64
	next := classicMin
	for i, n := range h.Bucket {
		below += n
		if next <= classicMax && i+bpf.HistogramMin == perDoubling*next {
			out[math.Ldexp(1, next)] = below
			next++
		}
	}
	return out
}

// native returns the buckets of h that are not empty by their index in a
// native histogram of schema 3.
func native(h *bpf.Histogram) map[int]int64 {
	out := make(map[int]int64)
	for i, n := range h.Bucket {
		if n > 0 {
			out[i+bpf.HistogramMin] = int64(n)
		}
	}
	return out
}

// newPortTries returns how many source ports were looked at as a metric. Its
// bounds are those of the kernel's buckets: 0, 1, 3, 7, to the longest range.
func newPortTries(desc *prometheus.Desc, t bpf.PortTries) prometheus.Metric {
	buckets := make(map[float64]uint64, len(t.Found))
	var below uint64
	for i, n := range t.Found {
		below += n
		buckets[float64(uint64(1)<<i-1)] = below
	}
	m, err := prometheus.NewConstHistogram(desc, below+t.Exhausted, float64(t.Sum), buckets)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}
