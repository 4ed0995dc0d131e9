package analysis

import "math"

// hidden are the mixture that MayHide inverts: bad rates at a share of p, and
// their weights.
var hidden = [...]struct{ share, weight float64 }{{0, .4}, {.1, .2}, {.25, .2}, {.5, .2}}

// hiddenBound is how much the mixture must be more likely than p before p is
// ruled out: with confidence 95 %, at every look.
const hiddenBound = 20

// MayHide returns the largest rate of bad outcomes, 0 to 1, that x bad ones of
// n do not rule out: 100 requests without an error are compatible with 3.3 %.
// n and x need not be whole numbers.
func MayHide(n, x float64) float64 {
	if x >= n {
		return 1
	}
	// The likelihood of the mixture against p grows with p: bisection, until
	// there is no float64 between the two ends.
	low, high := 0.0, 1.0
	for {
		p := low + (high-low)/2
		if p <= low || p >= high {
			return low
		}
		if hiddenLog(n, x, p) < math.Log(hiddenBound) {
			low = p
		} else {
			high = p
		}
	}
}

// hiddenLog is ln Σ v·a^x·((1 − a·p)/(1 − p))^(n − x).
func hiddenLog(n, x, p float64) float64 {
	var logs [len(hidden)]float64
	for i, h := range hidden {
		logs[i] = math.Log(h.weight) + (n-x)*(math.Log1p(-h.share*p)-math.Log1p(-p))
		if x > 0 { // 0⁰ is 1
			logs[i] += x * math.Log(h.share)
		}
	}
	return logSum(logs[:])
}
