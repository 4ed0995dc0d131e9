package analysis

import (
	"time"

	"siskin.dev/siskin/analysis/kayenta"
)

// A Kind is what a check does with what was observed.
type Kind int

const (
	// CompareErrors compares who fails on the canary and on stable.
	CompareErrors Kind = iota
	// CompareLatency compares who is slower than an edge from stable's past.
	CompareLatency
	// CompareReports compares outcomes that were reported from outside.
	CompareReports
	// MaxErrors wants the canary's share of failures to be at most Max.
	MaxErrors
	// MaxSlow wants the canary's share of requests longer than Bound to be at
	// most Max.
	MaxSlow
	// Metric wants a number from outside to be within bounds.
	Metric
	// Kayenta gives samples of metrics to the Kayenta-compatible judge.
	Kayenta
)

// statistical tells whether a kind has evidence that counts for falseAlarm.
func (k Kind) statistical() bool { return k <= MaxSlow }

// A Check is one of the things that a release asks of its version.
type Check struct {
	Name string
	Kind Kind

	// Quantile and Tolerance, as shares, are of CompareLatency.
	Quantile, Tolerance float64

	// Max is the allowed share of MaxErrors and MaxSlow, For how long it must
	// have been watched, Bound what is slow.
	Max   float64
	For   time.Duration
	Bound time.Duration

	// AtLeast and AtMost are the bounds of Metric, nil for none. It fails when
	// its last Failures samples are all outside; 0 is 1.
	AtLeast, AtMost *float64
	Failures        int

	// Judge is the configuration of Kayenta.
	Judge kayenta.Config
}

// Rules is what a release asks.
type Rules struct {
	Checks []Check
	// FalseAlarm is the chance to reject a canary that is as good as stable, for
	// the whole release and all its checks.
	FalseAlarm float64
	// MaxImpact is the share of all requests that the next step may spoil.
	MaxImpact float64
	// MinRequests of the canary are needed in each step.
	MinRequests uint64
	// NextWeight is the canary's share in the next step, 1 before a promotion.
	NextWeight float64
	// MaxUnread is the share of the canary's, or stable's, answers on HTTP
	// connections whose status may be unknown before counts say too little. 0:
	// none may.
	MaxUnread float64
	// Unit is what was randomised and speaks once: "client" or "connection".
	// Empty is "client".
	Unit string
}

// An Observation is everything that is known of a release at one look. Counts
// are of the whole release so far, without warm-up, unless they say otherwise.
type Observation struct {
	// Step is where the release is, counted from 1.
	Step int
	// Canary and Stable count requests, or connections where nobody parses
	// requests, and the server's failures.
	Canary, Stable Rate
	// CanaryAnswers and StableAnswers tell how requests were counted.
	CanaryAnswers, StableAnswers Answers
	// StepRequests are the canary's requests in this step.
	StepRequests uint64
	// CanaryLatency and StableLatency are for a person to read.
	CanaryLatency, StableLatency Histogram
	// Due are the canary's requests that are older than the slow threshold,
	// Known those of them that have ended one way or the other.
	Due, Known uint64
	// Arrivals are first-seen clients; none where the unit is the connection.
	Arrivals []Arrivals
	// ByCheck is what there is for each check, by its name.
	ByCheck map[string]Data
}

// Data is what a check is judged by; which fields count depends on its kind.
type Data struct {
	// Events are first bad outcomes: CompareErrors, CompareLatency.
	Events []Events
	// Canary and Stable count slow requests: CompareLatency, MaxSlow.
	Canary, Stable Rate
	// StableEdge and CanaryEdge are what is slow now; 0 where stable's past is
	// too short: CompareLatency.
	StableEdge, CanaryEdge time.Duration
	// Window is the canary's last stretch of at most For: MaxErrors, MaxSlow.
	Window Window
	// Reports are outcomes from outside: CompareReports.
	Reports []Report
	// Samples are the numbers so far, the last one last, none when the source is
	// silent: Metric.
	Samples []float64
	// Said is the last sample in the words of its source; "": it is a number.
	Said string
	// Metrics are both versions' samples: Kayenta.
	Metrics []kayenta.Metric
}

// Window is a stretch of time that ends at the look.
type Window struct {
	Watched       time.Duration
	Requests, Bad uint64
}

// unit is the noun of who speaks.
func (r Rules) unit() string {
	if r.Unit == "" {
		return "client"
	}
	return r.Unit
}
