package conduct

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/analysis/kayenta"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/rollout"
)

// judged is the part of a release's document that it is judged by. A run keeps
// the one it began with, as text in its plan.
type judged struct {
	Checks      []api.ReleaseCheck `json:"checks"`
	FalseAlarm  api.Share          `json:"falseAlarm"`
	MaxImpact   api.Share          `json:"maxImpact"`
	MinRequests int                `json:"minRequests"`
	Warmup      api.Duration       `json:"warmup"`
	Breaker     int                `json:"breaker"` // errors; 0: off
	Failures    api.Failures       `json:"failures"`
	MaxUnparsed api.Share          `json:"maxUnparsed"`
	Unit        string             `json:"unit"` // client, connection
}

// planOf makes a release's plan of its document and the services it changes.
func planOf(r *api.Release, services []*api.Service) (rollout.Plan, error) {
	spec := r.Spec
	p := rollout.Plan{
		Release: r.Metadata.Name, Services: slices.Clone(spec.Services), Version: spec.Version,
		Cut:      rollout.Cut{Connections: spec.Rollback.Connections, Deadline: time.Duration(spec.Rollback.Deadline)},
		Deadline: time.Duration(spec.Deadline), AutoStart: spec.AutoStart,
		FailSafe: spec.FailSafe, Lease: time.Duration(spec.Lease), Target: targetOf(spec.Version, services),
	}
	if spec.OnInconclusive == "abort" {
		p.AbortAfter = time.Duration(spec.InconclusiveAfter)
	}
	j := judged{
		Checks: spec.Checks, FalseAlarm: spec.FalseAlarm, MaxImpact: spec.MaxImpact, MinRequests: spec.MinRequests,
		Warmup: spec.Warmup, Breaker: int(spec.Breaker), Unit: "client",
		Failures: spec.Failures, MaxUnparsed: spec.MaxUnparsed,
	}
	for _, s := range services {
		if p.Cut.Connections == "" {
			p.Cut.Connections = s.Spec.ConnectionsOnRollback
		}
		if s.Spec.Affinity == "connection" {
			j.Unit = "connection"
		}
	}
	for _, s := range spec.Strategy.Steps() {
		h := rollout.Hold{Weight: rollout.Share(s.Weight), For: time.Duration(s.Hold), Pause: s.Pause}
		for _, c := range spec.Checks {
			if c.ErrorRate != nil && !s.Pause {
				h.For = max(h.For, time.Duration(c.ErrorRate.For))
			}
		}
		p.Steps = append(p.Steps, h)
	}
	text, err := json.Marshal(j)
	if err != nil {
		return p, fmt.Errorf("release %s: write down what it is judged by: %w", p.Release, err)
	}
	p.Judge = string(text)
	p.Hooks, err = hooksOf(spec.Hooks)
	return p, err
}

// targetOf stands for the backends of a version: it changes when they do, and
// not when anything else of the services does.
func targetOf(version string, services []*api.Service) string {
	var parts []string
	for _, s := range services {
		var backends []string
		for _, b := range s.Spec.Versions[version].Backends {
			backends = append(backends, b.Address.String())
		}
		slices.Sort(backends)
		parts = append(parts, s.Metadata.Name+"="+strings.Join(backends, ","))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func hooksOf(in []api.ReleaseHook) ([]rollout.Hook, error) {
	var out []rollout.Hook
	for _, h := range in {
		call, err := json.Marshal(hookCall{URL: h.URL, Command: h.Command, Timeout: time.Duration(h.Timeout)})
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", h.Name, err)
		}
		out = append(out, rollout.Hook{Name: h.Name, Before: moments(h.Before), After: moments(h.After), Call: string(call)})
	}
	return out, nil
}

func moments(names []string) []rollout.Moment {
	var out []rollout.Moment
	for _, n := range names {
		out = append(out, rollout.Moment(n))
	}
	return out
}

// judgedBy reads what a run is judged by.
func judgedBy(p rollout.Plan) (judged, error) {
	var j judged
	if err := json.Unmarshal([]byte(p.Judge), &j); err != nil {
		return j, fmt.Errorf("release %s: read what it is judged by: %w", p.Release, err)
	}
	return j, nil
}

// rules are what the judge asks at a step; next is the weight after it.
func (j judged) rules(next rollout.Share) analysis.Rules {
	r := analysis.Rules{
		FalseAlarm: ratio(j.FalseAlarm), MaxImpact: ratio(j.MaxImpact), MinRequests: uint64(max(j.MinRequests, 0)),
		NextWeight: float64(next) / float64(rollout.Whole), Unit: j.Unit, MaxUnread: ratio(j.MaxUnparsed),
	}
	for _, c := range j.Checks {
		r.Checks = append(r.Checks, checkOf(c))
	}
	return r
}

func ratio(s api.Share) float64 { return float64(s) / float64(rollout.Whole) }

func checkOf(c api.ReleaseCheck) analysis.Check {
	out := analysis.Check{Name: c.Name}
	switch {
	case c.ErrorRate != nil:
		out.Kind, out.Max, out.For = analysis.MaxErrors, ratio(c.ErrorRate.Max), time.Duration(c.ErrorRate.For)
	case c.Compare != nil && c.Compare.Judge == judgeKayenta:
		out.Kind = analysis.Kayenta
	case c.Compare != nil && c.Compare.Metric == metricLatency:
		out.Kind, out.Quantile, out.Tolerance = analysis.CompareLatency, ratio(c.Compare.Quantile), ratio(c.Compare.Tolerance)
	case c.Compare != nil:
		out.Kind = analysis.CompareErrors
	case c.Webhook != nil:
		one := 1.0
		out.Kind, out.AtLeast = analysis.Metric, &one
	case c.Prometheus != nil && c.Prometheus.Control != "":
		out.Kind, out.Judge = analysis.Kayenta, kayenta.Config{}
	case c.Prometheus != nil:
		out.Kind, out.AtLeast, out.AtMost = analysis.Metric, c.Prometheus.Min, c.Prometheus.Max
	case c.Reported != nil:
		out.Kind = analysis.CompareReports
	}
	return out
}

const (
	judgeKayenta  = "kayenta"
	metricLatency = "latency"
)

// latencyCheck is the comparison of latencies that the kernel watches for, nil
// without one: it compares each request with one threshold a version.
func (j judged) latencyCheck() *api.ReleaseCheck {
	for i, c := range j.Checks {
		if c.WatchesLatency() {
			return &j.Checks[i]
		}
	}
	return nil
}
