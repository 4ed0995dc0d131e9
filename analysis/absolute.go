package analysis

import "math"

// absoluteRatios are the rates, as multiples of the allowed one, that the
// evidence against "at most this rate" is a mixture of.
var absoluteRatios = [...]float64{1.5, 2, 3, 5, 10}

// AbsoluteLog returns ln E against "the rate of bad outcomes is at most limit",
// of x bad ones of n. Where limit is so large that no multiple of it is a rate,
// there is no evidence: 0.
//
// A plain window at the limit would fail one canary in ten that is truly at half
// of it; this one fails it with probability falseAlarm.
func AbsoluteLog(n, x, limit float64) float64 {
	logs := make([]float64, 0, len(absoluteRatios))
	for _, r := range absoluteRatios {
		if r*limit < 1 {
			logs = append(logs, x*math.Log(r)+(n-x)*(math.Log1p(-r*limit)-math.Log1p(-limit)))
		}
	}
	if len(logs) == 0 {
		return 0
	}
	return logMean(logs)
}

// Rate is how often something bad happened.
type Rate struct {
	Requests, Bad uint64
	// Clients is the number of distinct clients that it happened to, 0 where
	// nobody knows.
	Clients uint64
	// Backends are the bad ones by backend.
	Backends []Backend
}

// Backend is a backend's part of what went wrong.
type Backend struct {
	Address string
	Bad     uint64
}

// Share is the rate, 0 without requests.
func (r Rate) Share() float64 {
	if r.Requests == 0 {
		return 0
	}
	return float64(r.Bad) / float64(r.Requests)
}

// cluster is how many bad outcomes a client with any has on average. A client
// that retries is one witness, not many: counts are divided by this before a
// rate is judged by itself. (The comparison with stable needs no such estimate.)
func (r Rate) cluster() float64 {
	if r.Clients == 0 {
		return 1
	}
	return max(1, float64(r.Bad)/float64(r.Clients))
}

// mayHide is what the rate may truly be.
func (r Rate) mayHide() float64 {
	return MayHide(float64(r.Requests)/r.cluster(), float64(r.Bad)/r.cluster())
}

// AgainstLimit is the evidence that the rate is above limit.
func (r Rate) AgainstLimit(limit float64) Evidence {
	log := AbsoluteLog(float64(r.Requests)/r.cluster(), float64(r.Bad)/r.cluster(), limit)
	if r.Clients > 0 {
		return Evidence{log, r.Clients}
	}
	return Evidence{log, r.Bad}
}
