package api

import (
	"encoding/json"
	"time"

	"siskin.dev/siskin/steering"
)

// Release is a document of kind Release: how a version of one or several
// services is brought out.
type Release struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata"`
	Spec       ReleaseSpec `json:"spec"`
}

// ReleaseSpec is what a release shall do.
type ReleaseSpec struct {
	Services          []string       `json:"services"` // all change at one instant
	Version           string         `json:"version"`
	Strategy          Strategy       `json:"strategy"`
	Checks            []ReleaseCheck `json:"checks"`
	FalseAlarm        Share          `json:"falseAlarm"`                 // chance to reject a version as good as stable, over the whole release
	MaxImpact         Share          `json:"maxImpact"`                  // what may still go wrong in the next step
	MinRequests       int            `json:"minRequests"`                // by the version, before a step may end
	Warmup            Duration       `json:"warmup"`                     // a backend's first requests are watched, not judged
	OnInconclusive    string         `json:"onInconclusive"`             // hold, abort
	InconclusiveAfter Duration       `json:"inconclusiveAfter,omitzero"` // beyond the hold; abort only
	Rollback          RollbackPolicy `json:"rollback,omitzero"`
	FailSafe          bool           `json:"failSafe"` // the weights count only while the daemon renews its lease
	Lease             Duration       `json:"lease"`
	Breaker           Breaker        `json:"breaker"`
	Failures          Failures       `json:"failures"`    // which answers are errors
	MaxUnparsed       Share          `json:"maxUnparsed"` // of answers on HTTP connections, before they say too little
	AutoStart         bool           `json:"autoStart"`
	Deadline          Duration       `json:"deadline,omitzero"` // for the whole release, pauses not counted; 0: none
	Hooks             []ReleaseHook  `json:"hooks,omitempty"`
}

// Strategy is the way up. Exactly one of its fields is set.
type Strategy struct {
	Canary    *CanaryStrategy    `json:"canary,omitempty"`
	BlueGreen *BlueGreenStrategy `json:"blueGreen,omitempty"`
}

// CanaryStrategy goes up step by step.
type CanaryStrategy struct {
	Steps []ReleaseStep `json:"steps"`
}

// ReleaseStep is one weight, held and judged; with Pause a person ends it.
// Without a weight it keeps the one of the step before.
type ReleaseStep struct {
	Weight Share    `json:"weight,omitzero"`
	Hold   Duration `json:"hold,omitzero"`
	Pause  bool     `json:"pause,omitzero"`
}

// BlueGreenStrategy moves everything at once, and watches it before the old
// version is given up.
type BlueGreenStrategy struct {
	Bake    Duration `json:"bake"`
	Control Share    `json:"control,omitzero"` // stays on the old version meanwhile, to compare with
}

const whole = Share(steering.Whole)

// Steps are the weights and holds of either strategy.
func (s Strategy) Steps() []ReleaseStep {
	switch {
	case s.Canary != nil:
		return s.Canary.Steps
	case s.BlueGreen != nil:
		return []ReleaseStep{{Weight: whole - s.BlueGreen.Control, Hold: s.BlueGreen.Bake}}
	}
	return nil
}

// ReleaseCheck is one thing that is watched. Exactly one of the fields beside
// Name is set.
type ReleaseCheck struct {
	Name       string           `json:"name"`
	ErrorRate  *ErrorRateCheck  `json:"errorRate,omitempty"`
	Compare    *CompareCheck    `json:"compare,omitempty"`
	Webhook    *WebhookCheck    `json:"webhook,omitempty"`
	Prometheus *PrometheusCheck `json:"prometheus,omitempty"`
	Reported   *struct{}        `json:"reported,omitempty"` // outcomes that siskin report pushes, against stable's
}

// absolute tells whether the check needs no stable version beside it.
func (c ReleaseCheck) absolute() bool {
	return c.ErrorRate != nil || c.Webhook != nil || c.Prometheus != nil && c.Prometheus.Control == ""
}

// WatchesLatency tells whether the kernel watches each request for the check: it
// has one threshold for each version of a release.
func (c ReleaseCheck) WatchesLatency() bool {
	return c.Compare != nil && c.Compare.Metric == "latency" && c.Compare.Judge != "kayenta"
}

// ErrorRateCheck bounds the rate of errors.
type ErrorRateCheck struct {
	Max Share    `json:"max"`
	For Duration `json:"for,omitzero"` // a step's hold is at least this
}

// CompareCheck compares the version with stable.
type CompareCheck struct {
	Metric    string `json:"metric"`             // errorRate, latency
	Quantile  Share  `json:"quantile,omitzero"`  // latency only
	Tolerance Share  `json:"tolerance,omitzero"` // latency only: slower by so much is the same
	Judge     string `json:"judge"`              // sequential, kayenta
}

// WebhookCheck asks a URL: 2xx passes, any other status fails, no answer is no
// data.
type WebhookCheck struct {
	URL      string   `json:"url"`
	Timeout  Duration `json:"timeout"`
	Interval Duration `json:"interval"`
}

// PrometheusCheck asks a Prometheus server for one number at a time. It is
// bounded by Max and Min, or compared with the answers to Control.
type PrometheusCheck struct {
	Address  string   `json:"address"` // of the server: http://127.0.0.1:9090
	Query    string   `json:"query"`
	Max      *float64 `json:"max,omitempty"`
	Min      *float64 `json:"min,omitempty"`
	Control  string   `json:"control,omitempty"` // the same query for stable
	Judge    string   `json:"judge,omitempty"`   // kayenta, where there is a control
	Interval Duration `json:"interval"`
	Timeout  Duration `json:"timeout"`
}

// RollbackPolicy says what becomes of the version's open connections.
type RollbackPolicy struct {
	Connections string   `json:"connections,omitempty"` // keep, drain, reset; "": as the service says
	Deadline    Duration `json:"deadline,omitzero"`     // drain only
}

// Breaker is how many errors of distinct clients trip the kernel's breaker; 0
// is off.
type Breaker int

// MarshalJSON writes the breaker as the documents do.
func (b Breaker) MarshalJSON() ([]byte, error) {
	if b == 0 {
		return json.Marshal(breakerOff)
	}
	return json.Marshal(struct {
		Errors int `json:"errors"`
	}{int(b)})
}

const breakerOff = "off"

// ReleaseHook is told of transitions. One that comes before them is asked, and
// may refuse; nothing can refuse a rollback. URL or Command is set.
type ReleaseHook struct {
	Name    string   `json:"name"`
	Before  []string `json:"before,omitempty"` // start, step, promote
	After   []string `json:"after,omitempty"`  // these and pause, rollback, abort, undo
	URL     string   `json:"url,omitempty"`
	Command []string `json:"command,omitempty"`
	Timeout Duration `json:"timeout"`
}

// defaults are what a release has where its document says nothing.
func (s *ReleaseSpec) defaults() {
	s.FalseAlarm, s.MaxImpact, s.MinRequests = 100, 50, 100
	s.Warmup = Duration(30 * time.Second)
	s.OnInconclusive = "hold"
	s.FailSafe, s.Lease = true, Duration(10*time.Second)
	s.Breaker = 5
	s.Failures, s.MaxUnparsed = defaultFailures(), 500
}

// complete fills in the defaults that depend on what was read.
func (s *ReleaseSpec) complete() {
	b := s.Strategy.BlueGreen
	if len(s.Checks) == 0 && (b == nil || b.Control > 0) {
		s.Checks = []ReleaseCheck{{Name: "worse-than-stable", Compare: &CompareCheck{Metric: "errorRate", Judge: "sequential"}}}
	}
	if s.OnInconclusive == "abort" && s.InconclusiveAfter == 0 {
		s.InconclusiveAfter = Duration(10 * time.Minute)
	}
	if s.Rollback.Connections == "drain" && s.Rollback.Deadline == 0 {
		s.Rollback.Deadline = Duration(30 * time.Second)
	}
}
