package analysis

import "math"

// Arrivals counts clients by the version of their first flow in a release, in
// one epoch. Flows that the breaker, the lease or a segment sent elsewhere are
// not among them.
type Arrivals struct {
	Weights        Weights
	Canary, Stable uint64
}

const (
	// ratioPrior is how firmly the sample-ratio test believes in small
	// deviations: the concentration of its Dirichlet prior around the weights.
	ratioPrior = 1000
	// ratioLoud is the evidence from which on the ratio makes everything else
	// inconclusive.
	ratioLoud = 1000
)

// SampleRatioLog returns ln E against "new clients are split as the weights
// say", two-sided, each epoch by itself and multiplied. Only for clients: busy
// ones open many connections, and on those it would cry wolf.
func SampleRatioLog(arrivals []Arrivals) float64 {
	sum := 0.0
	for _, a := range arrivals {
		share, ok := a.Weights.share()
		if !ok {
			continue
		}
		c, s := float64(a.Canary), float64(a.Stable)
		pc, ps := ratioPrior*share, ratioPrior*(1-share)
		sum += logBeta(pc+c, ps+s) - logBeta(pc, ps) - c*math.Log(share) - s*math.Log1p(-share)
	}
	return sum
}

func logBeta(a, b float64) float64 {
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	return la + lb - lab
}
