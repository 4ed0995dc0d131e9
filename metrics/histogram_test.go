package metrics

import (
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"siskin.dev/siskin/bpf"
)

// exactIndex is BucketIndex by definition: the bucket of units * 2^-30 s, with
// the eighths as exact powers. v > 2^(i/8) exactly when v^8 > 2^i.
func exactIndex(units uint64) int {
	v := new(big.Rat).SetFrac(new(big.Int).SetUint64(units), big.NewInt(1<<30))
	eighth := new(big.Rat).SetInt64(1)
	for range perDoubling {
		eighth.Mul(eighth, v)
	}
	i := bpf.HistogramMin
	for ; i < bpf.HistogramMin+bpf.HistogramBuckets-1; i++ {
		bound := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(i, 0))))
		bound.Quo(bound, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(-i, 0)))))
		if eighth.Cmp(bound) <= 0 {
			break
		}
	}
	return i - bpf.HistogramMin
}

func TestBucketIndexKnown(t *testing.T) {
	tests := []struct {
		name string
		ns   uint64
		want int
	}{
		{"nothing", 0, 0},
		{"one nanosecond", 1, 0},
		{"below the first bound, 953.67 ns", 953, 0},
		{"above it", 955, 1},
		{"1 ms is in (2^-10 s, 2^-9.875 s]", 1_000_000, 160 - 79},
		{"just below 2^-10 s", 976_562, 160 - 80},
		{"1 s is a bound", 1_000_000_000, 160},
		{"just above it", 1_000_000_100, 161},
		{"100 s", 100_000_000_000, 160 + 54},
		{"above the last bound", 200_000_000_000, 215},
		{"the largest number", math.MaxUint64, 215},
	}
	for _, tt := range tests {
		if got := BucketIndex(tt.ns); got != tt.want {
			t.Errorf("%s: BucketIndex(%d) = %d, want %d", tt.name, tt.ns, got, tt.want)
		}
	}
}

func TestBucketIndexIsExactInItsUnits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Every magnitude is as likely as any other.
		ns := rapid.Uint64().Draw(t, "ns") >> rapid.IntRange(0, 63).Draw(t, "shift")
		units := (min(ns, 1<<40) * 9007199) >> 23
		if got, want := BucketIndex(ns), exactIndex(units); got != want {
			t.Fatalf("BucketIndex(%d) = %d, want %d", ns, got, want)
		}
	})
}

// The unit is 0.93 ns, and its factor off by 2e-8: farther from a bound than
// that, the bucket is the one of the duration itself.
func TestBucketIndexHoldsTheDuration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Uint64Range(1000, 200e9).Draw(t, "ns") >> rapid.IntRange(0, 24).Draw(t, "shift")
		i, s := BucketIndex(ns), float64(ns)/1e9
		slack := 2e-9 + 4e-8*s
		if i < bpf.HistogramBuckets-1 && s > Bound(i)+slack {
			t.Fatalf("%d ns is above bucket %d, which ends at %v s", ns, i, Bound(i))
		}
		if i > 0 && s < Bound(i-1)-slack {
			t.Fatalf("%d ns is below bucket %d, which begins at %v s", ns, i, Bound(i-1))
		}
	})
}

func TestBucketIndexIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Uint64().Draw(t, "a") >> rapid.IntRange(0, 63).Draw(t, "shift")
		b := a + rapid.Uint64Range(0, math.MaxUint64-a).Draw(t, "more")
		if BucketIndex(a) > BucketIndex(b) {
			t.Fatalf("BucketIndex(%d) = %d > BucketIndex(%d) = %d", a, BucketIndex(a), b, BucketIndex(b))
		}
	})
}

func TestEighths(t *testing.T) {
	for i, threshold := range eighths() {
		for _, side := range []struct {
			value uint64
			above bool
		}{{threshold, false}, {threshold + 1, true}} {
			power := new(big.Int).Exp(new(big.Int).SetUint64(side.value), big.NewInt(8), nil)
			bound := new(big.Int).Lsh(big.NewInt(1), uint(63*8+i+1))
			if above := power.Cmp(bound) > 0; above != side.above {
				t.Errorf("eighth %d: %#x above the bound: %v, want %v", i+1, side.value, above, side.above)
			}
		}
	}
}

func TestBoundIsExactAtPowersOfTwo(t *testing.T) {
	for power := classicMin; power <= classicMax; power++ {
		i := perDoubling*power - bpf.HistogramMin
		if got, want := Bound(i), math.Ldexp(1, power); got != want {
			t.Errorf("Bound(%d) = %v, want %v", i, got, want)
		}
	}
}

// histograms draws histograms of up to 50 durations, with those durations in
// order.
func histograms(t *rapid.T) (bpf.Histogram, []uint64) {
	var h bpf.Histogram
	durations := rapid.SliceOfN(rapid.Uint64Range(1_000, 100e9), 1, 50).Draw(t, "durations")
	for _, ns := range durations {
		h.Bucket[BucketIndex(ns)]++
		h.SumNs += ns
	}
	slices.Sort(durations)
	return h, durations
}

func TestQuantileIsInTheBucketOfTheSample(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, durations := histograms(t)
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		got, ok := Quantile(&h, q)
		if !ok {
			t.Fatal("no quantile although there is data")
		}
		at := max(int(math.Ceil(q*float64(len(durations))))-1, 0)
		i := BucketIndex(durations[at])
		low := 0.0
		if i > 0 {
			low = Bound(i - 1)
		}
		if got < low*(1-1e-12) || got > Bound(i)*(1+1e-12) {
			t.Fatalf("quantile %v is %v s, not in (%v, %v]", q, got, low, Bound(i))
		}
	})
}

func TestQuantileEdges(t *testing.T) {
	var h bpf.Histogram
	if q, ok := Quantile(&h, 0.5); ok {
		t.Errorf("an empty histogram has the median %v", q)
	}
	h.Bucket[bpf.HistogramBuckets-1] = 1
	if q, _ := Quantile(&h, 0.5); q != Bound(bpf.HistogramBuckets-2) {
		t.Errorf("the median of the last bucket is %v, want its lower bound %v", q, Bound(bpf.HistogramBuckets-2))
	}
	if q, ok := Quantile(&h, math.NaN()); ok {
		t.Errorf("the NaN-quantile is %v", q)
	}
	h = bpf.Histogram{}
	h.Bucket[160] = 2 // (2^-1/8, 1]
	if q, _ := Quantile(&h, 0.5); math.Abs(q-math.Exp2(-1.0/16)) > 1e-12 {
		t.Errorf("the middle of the bucket that ends at 1 s is %v, want 2^(-1/16)", q)
	}
}

func TestFormsAgreeWithTheBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, _ := histograms(t)
		for le, got := range classic(&h) {
			var want uint64
			for i, n := range h.Bucket {
				if Bound(i) <= le {
					want += n
				}
			}
			if got != want {
				t.Fatalf("classic bucket le=%v holds %d, want %d", le, got, want)
			}
		}
		var sum uint64
		for i, n := range native(&h) {
			sum += uint64(n)
			if h.Bucket[i-bpf.HistogramMin] != uint64(n) {
				t.Fatalf("native bucket %d holds %d", i, n)
			}
		}
		if sum != Count(&h) {
			t.Fatalf("native buckets hold %d of %d", sum, Count(&h))
		}
	})
}
