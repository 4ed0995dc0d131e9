package test

import (
	"math"
	"testing"
)

// binomialInterval returns the counts that n draws with probability p fall
// into with the given confidence, with equal tails. It adds up the exact
// probabilities: at 0.01 % a normal approximation is far off.
func binomialInterval(n int, p, confidence float64) (low, high int) {
	tail := (1 - confidence) / 2
	logN, _ := math.Lgamma(float64(n) + 1)
	probability := func(k int) float64 {
		logK, _ := math.Lgamma(float64(k) + 1)
		logRest, _ := math.Lgamma(float64(n-k) + 1)
		return math.Exp(logN - logK - logRest + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
	low = -1
	below := 0.0 // of counts up to k
	for k := range n + 1 {
		below += probability(k)
		if low < 0 && below > tail {
			low = k
		}
		if below >= 1-tail {
			return low, k
		}
	}
	return low, n
}

func TestBinomialInterval(t *testing.T) {
	for _, c := range []struct {
		n          int
		p          float64
		confidence float64
		low, high  int
	}{
		// The quantiles (1 ± confidence)/2, from the exact sum.
		{10, 0.5, 0.9, 2, 8},
		{100, 0.05, 0.95, 1, 10},
		{100_000, 0.05, 0.999, 4775, 5228},
		{100_000, 0.0001, 0.999, 2, 22},
	} {
		low, high := binomialInterval(c.n, c.p, c.confidence)
		if low != c.low || high != c.high {
			t.Errorf("n=%d p=%g at %g: [%d, %d], want [%d, %d]", c.n, c.p, c.confidence, low, high, c.low, c.high)
		}
	}
}

// checkShare fails the test where a count is outside the 99.9 % interval.
func checkShare(t *testing.T, what string, count, n int, p float64) {
	t.Helper()
	low, high := binomialInterval(n, p, 0.999)
	t.Logf("%s: %d of %d (%.3f%%), interval [%d, %d]", what, count, n, 100*float64(count)/float64(n), low, high)
	if count < low || count > high {
		t.Errorf("%s: %d of %d are outside [%d, %d]", what, count, n, low, high)
	}
}
