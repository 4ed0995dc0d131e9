package analysis

import (
	"math"
)

// Weights are the shares, in basis points, that the canary and stable had in
// one epoch of the weight word, for the segment of the flow.
type Weights struct {
	Canary, Stable uint32
}

// share is the canary's part of the two, and false where there was no choice
// between them: such flows carry no evidence.
func (w Weights) share() (float64, bool) {
	if w.Canary == 0 || w.Stable == 0 {
		return 0, false
	}
	return float64(w.Canary) / (float64(w.Canary) + float64(w.Stable)), true
}

// Events counts clients by the first bad outcome that they had in a step. What
// was randomised is the client (or the connection, where that is the affinity),
// so it speaks once a step however often it fails.
type Events struct {
	// Weights are those of the epoch written in the flow, never a share that
	// was observed.
	Weights Weights
	// Step is the release's step at the time of the outcome, counted from 1.
	// Prev is the step of the client's last bad outcome before, 0 for none.
	Step, Prev     int
	Canary, Stable uint64
}

// ratios are the error rates of the canary, as multiples of stable's, that the
// evidence is a mixture of.
var ratios = [...]float64{1.5, 2, 3, 5, 10, 20, 100}

// logRatios are their logarithms.
var logRatios = func() (out [len(ratios)]float64) {
	for i, r := range ratios {
		out[i] = math.Log(r)
	}
	return out
}()

// A Tally adds up the evidence of one check against the canary. The hypothesis
// that it speaks against is "no worse than stable": then a client's first bad
// outcome is the canary's with the probability of its epoch's weight, whatever
// clusters, bursts and ramps do, so the e-value below has expectation 1 or less
// at every look. It is one-sided: a better canary never earns evidence.
//
// The zero Tally is ready to use.
type Tally struct {
	// byStart has, for the process that began with step i+1, ln E for each
	// ratio: c·ln r − Σ m·ln(1 + θ(r − 1)).
	byStart [][len(ratios)]float64
	clients uint64
}

// Add books events. A process that began with step i counts those in step i or
// later of clients that had been silent since it began.
func (t *Tally) Add(e Events) {
	share, ok := e.Weights.share()
	if !ok || e.Prev >= e.Step {
		return
	}
	for len(t.byStart) < e.Step {
		t.byStart = append(t.byStart, [len(ratios)]float64{})
	}
	if e.Prev == 0 {
		t.clients += e.Canary
	}
	for r := range ratios {
		more := float64(e.Canary)*logRatios[r] - float64(e.Canary+e.Stable)*math.Log1p(share*(ratios[r]-1))
		for start := e.Prev; start < e.Step; start++ {
			t.byStart[start][r] += more
		}
	}
}

// Clients is the number of distinct clients of the canary that had a bad
// outcome and count as evidence.
func (t *Tally) Clients() uint64 { return t.clients }

// LogStart returns ln E of the process that began with a step, from 1: the mean
// over the ratios.
func (t *Tally) LogStart(step int) float64 {
	if step > len(t.byStart) {
		return 0
	}
	return logMean(t.byStart[step-1][:])
}

// Log returns ln E of the check in a step, from 1: the processes by their
// start, each with its weight 1/(i(i+1)), and the weight of those that have not
// begun, which stand at 1.
func (t *Tally) Log(step int) float64 {
	logs := make([]float64, 0, 16)
	for start := 1; start <= step; start++ {
		logs = append(logs, t.LogStart(start)-math.Log(float64(start)*float64(start+1)))
	}
	return logSum(append(logs, -math.Log(float64(step+1))))
}

// Evidence is what one check has against the canary.
type Evidence struct {
	// Log is the natural logarithm of the e-value: a broken canary's own would
	// be beyond what a float64 can hold.
	Log float64
	// Clients is the number of distinct canary clients behind it.
	Clients uint64
}

// Tallied returns the evidence of a whole table in a step, counted from 1.
func Tallied(table []Events, step int) Evidence {
	var t Tally
	for _, e := range table {
		t.Add(e)
	}
	return Evidence{t.Log(step), t.Clients()}
}

// ReleaseLog returns ln E of a release: the mean over its checks, which is
// valid however they depend on each other. Without checks there is none: 0.
func ReleaseLog(checks []Evidence) float64 {
	if len(checks) == 0 {
		return 0
	}
	logs := make([]float64, 0, 16)
	for _, c := range checks {
		logs = append(logs, c.Log)
	}
	return logMean(logs)
}

// minClients must have had a bad outcome of the canary before it is rejected.
const minClients = 3

// Rejects tells whether the evidence suffices: the release's e-value is at least
// 1/falseAlarm, and a check that is as strong has at least three distinct
// clients behind it.
func Rejects(checks []Evidence, falseAlarm float64) bool {
	need := -math.Log(falseAlarm)
	if ReleaseLog(checks) < need {
		return false
	}
	for _, c := range checks {
		if c.rejects(need) {
			return true
		}
	}
	return false
}

func (e Evidence) rejects(need float64) bool { return e.Log >= need && e.Clients >= minClients }

// EValue is exp(log), at most the largest float64, which JSON can carry.
func EValue(log float64) float64 { return min(math.Exp(log), math.MaxFloat64) }

// PValue returns the p-value, valid at every look, of the largest ln E that was
// seen so far.
func PValue(maxLog float64) float64 { return math.Exp(min(0, -maxLog)) }

// logSum is ln Σ exp(logs), without overflow.
func logSum(logs []float64) float64 {
	top := math.Inf(-1)
	for _, l := range logs {
		top = max(top, l)
	}
	if math.IsInf(top, 0) {
		return top
	}
	sum := 0.0
	for _, l := range logs {
		sum += math.Exp(l - top)
	}
	return top + math.Log(sum)
}

func logMean(logs []float64) float64 { return logSum(logs) - math.Log(float64(len(logs))) }
