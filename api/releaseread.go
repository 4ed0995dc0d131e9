package api

import (
	"math"
	"net/url"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

func (r *reader) release(n ast.Node) *Release {
	out := &Release{APIVersion: APIVersion, Kind: KindRelease}
	out.Spec.defaults()
	r.object(n, &out.Metadata, func(n ast.Node, path string) { r.releaseSpec(n, path, &out.Spec) })
	out.Spec.complete()
	return out
}

func (r *reader) releaseSpec(n ast.Node, path string, s *ReleaseSpec) {
	r.fields(n, path,
		field{"services", true, func(n ast.Node, path string) { r.texts(n, path, &s.Services) }},
		field{"version", true, func(n ast.Node, path string) { s.Version, _ = r.text(n, path) }},
		field{"strategy", true, func(n ast.Node, path string) { r.strategy(n, path, &s.Strategy) }},
		field{"checks", false, func(n ast.Node, path string) {
			r.list(n, path, func(n ast.Node, path string) { s.Checks = append(s.Checks, r.releaseCheck(n, path)) })
		}},
		field{"falseAlarm", false, func(n ast.Node, path string) { s.FalseAlarm = r.share(n, path) }},
		field{"maxImpact", false, func(n ast.Node, path string) { s.MaxImpact = r.share(n, path) }},
		field{"minRequests", false, func(n ast.Node, path string) {
			if v, ok := r.integer(n, path, 0, math.MaxInt32); ok {
				s.MinRequests = int(v)
			}
		}},
		field{"warmup", false, func(n ast.Node, path string) { r.durationOrNone(n, path, &s.Warmup) }},
		field{"onInconclusive", false, func(n ast.Node, path string) { r.oneOf(n, path, &s.OnInconclusive, "hold", "abort") }},
		field{"inconclusiveAfter", false, func(n ast.Node, path string) { r.duration(n, path, &s.InconclusiveAfter) }},
		field{"rollback", false, func(n ast.Node, path string) {
			r.fields(n, path,
				field{"connections", false, func(n ast.Node, path string) {
					r.oneOf(n, path, &s.Rollback.Connections, "keep", "drain", "reset")
				}},
				field{"deadline", false, func(n ast.Node, path string) { r.duration(n, path, &s.Rollback.Deadline) }},
			)
		}},
		field{"failSafe", false, func(n ast.Node, path string) { r.truth(n, path, &s.FailSafe) }},
		field{"lease", false, func(n ast.Node, path string) { r.duration(n, path, &s.Lease) }},
		field{"breaker", false, func(n ast.Node, path string) { r.breaker(n, path, &s.Breaker) }},
		field{"failures", false, func(n ast.Node, path string) { r.failures(n, path, &s.Failures) }},
		field{"maxUnparsed", false, func(n ast.Node, path string) { s.MaxUnparsed = r.share(n, path) }},
		field{"autoStart", false, func(n ast.Node, path string) { r.truth(n, path, &s.AutoStart) }},
		field{"deadline", false, func(n ast.Node, path string) { r.duration(n, path, &s.Deadline) }},
		field{"hooks", false, func(n ast.Node, path string) {
			r.list(n, path, func(n ast.Node, path string) { s.Hooks = append(s.Hooks, r.hook(n, path)) })
		}},
	)
}

// exactlyOne counts the fields that exclude each other.
func (r *reader) exactlyOne(n ast.Node, path string, count int, what string, choices ...string) {
	if count != 1 {
		r.fail(n, path, "has %d %s: write exactly one of %s", count, what, either(choices))
	}
}

func (r *reader) strategy(n ast.Node, path string, s *Strategy) {
	r.fields(n, path,
		field{"canary", false, func(n ast.Node, path string) {
			s.Canary = &CanaryStrategy{}
			r.fields(n, path, field{"steps", true, func(n ast.Node, path string) {
				r.list(n, path, func(n ast.Node, path string) { s.Canary.Steps = append(s.Canary.Steps, r.step(n, path)) })
			}})
		}},
		field{"blueGreen", false, func(n ast.Node, path string) {
			s.BlueGreen = &BlueGreenStrategy{}
			r.fields(n, path,
				field{"bake", true, func(n ast.Node, path string) { r.duration(n, path, &s.BlueGreen.Bake) }},
				field{"control", false, func(n ast.Node, path string) { s.BlueGreen.Control = r.share(n, path) }},
			)
		}},
	)
	count := 0
	if s.Canary != nil {
		count++
	}
	if s.BlueGreen != nil {
		count++
	}
	r.exactlyOne(n, path, count, "strategies", "canary", "blueGreen")
}

func (r *reader) step(n ast.Node, path string) ReleaseStep {
	var s ReleaseStep
	weighed := false
	r.fields(n, path,
		field{"weight", false, func(n ast.Node, path string) {
			before := len(r.problems)
			if s.Weight, weighed = r.share(n, path), true; s.Weight == 0 && len(r.problems) == before {
				r.fail(n, path, "0%% is no step: write a share above zero")
			}
		}},
		field{"hold", false, func(n ast.Node, path string) { r.durationOrNone(n, path, &s.Hold) }},
		field{"pause", false, func(n ast.Node, path string) { r.truth(n, path, &s.Pause) }},
	)
	if !weighed && !s.Pause {
		r.fail(n, path, "has neither a weight nor pause: true: write one of them")
	}
	return s
}

func (r *reader) releaseCheck(n ast.Node, path string) ReleaseCheck {
	var c ReleaseCheck
	kinds := 0
	kind := func(read func(ast.Node, string)) func(ast.Node, string) {
		return func(n ast.Node, path string) { kinds++; read(n, path) }
	}
	r.fields(n, path,
		field{"name", true, func(n ast.Node, path string) { c.Name, _ = r.text(n, path) }},
		field{"errorRate", false, kind(func(n ast.Node, path string) {
			c.ErrorRate = &ErrorRateCheck{}
			r.fields(n, path,
				field{"max", true, func(n ast.Node, path string) { c.ErrorRate.Max = r.share(n, path) }},
				field{"for", false, func(n ast.Node, path string) { r.duration(n, path, &c.ErrorRate.For) }},
			)
		})},
		field{"compare", false, kind(func(n ast.Node, path string) { c.Compare = r.compare(n, path) })},
		field{"webhook", false, kind(func(n ast.Node, path string) { c.Webhook = r.webhook(n, path) })},
		field{"prometheus", false, kind(func(n ast.Node, path string) { c.Prometheus = r.prometheus(n, path) })},
		field{"reported", false, kind(func(n ast.Node, path string) { c.Reported = &struct{}{}; r.fields(n, path) })},
	)
	r.exactlyOne(n, path, kinds, "kinds of check", "errorRate", "compare", "webhook", "prometheus", "reported")
	return c
}

func (r *reader) compare(n ast.Node, path string) *CompareCheck {
	c := &CompareCheck{Judge: "sequential"}
	r.fields(n, path,
		field{"metric", true, func(n ast.Node, path string) { r.oneOf(n, path, &c.Metric, "errorRate", "latency") }},
		field{"quantile", false, func(n ast.Node, path string) { c.Quantile = r.share(n, path) }},
		field{"tolerance", false, func(n ast.Node, path string) { c.Tolerance = r.share(n, path) }},
		field{"judge", false, func(n ast.Node, path string) { r.oneOf(n, path, &c.Judge, "sequential", "kayenta") }},
	)
	return c
}

func (r *reader) webhook(n ast.Node, path string) *WebhookCheck {
	c := &WebhookCheck{Timeout: Duration(5 * time.Second), Interval: Duration(10 * time.Second)}
	r.fields(n, path,
		field{"url", true, func(n ast.Node, path string) { r.url(n, path, &c.URL) }},
		field{"timeout", false, func(n ast.Node, path string) { r.duration(n, path, &c.Timeout) }},
		field{"interval", false, func(n ast.Node, path string) { r.duration(n, path, &c.Interval) }},
	)
	return c
}

func (r *reader) prometheus(n ast.Node, path string) *PrometheusCheck {
	c := &PrometheusCheck{Timeout: Duration(5 * time.Second), Interval: Duration(15 * time.Second)}
	r.fields(n, path,
		field{"address", true, func(n ast.Node, path string) { r.url(n, path, &c.Address) }},
		field{"query", true, func(n ast.Node, path string) { c.Query, _ = r.text(n, path) }},
		field{"max", false, func(n ast.Node, path string) { c.Max = r.number(n, path) }},
		field{"min", false, func(n ast.Node, path string) { c.Min = r.number(n, path) }},
		field{"control", false, func(n ast.Node, path string) { c.Control, _ = r.text(n, path) }},
		field{"judge", false, func(n ast.Node, path string) { r.oneOf(n, path, &c.Judge, "kayenta") }},
		field{"interval", false, func(n ast.Node, path string) { r.duration(n, path, &c.Interval) }},
		field{"timeout", false, func(n ast.Node, path string) { r.duration(n, path, &c.Timeout) }},
	)
	return c
}

func (r *reader) breaker(n ast.Node, path string, to *Breaker) {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		r.fields(n, path, field{"errors", true, func(n ast.Node, path string) {
			// The kernel's bucket holds ten errors.
			if v, ok := r.integer(n, path, 1, 10); ok {
				*to = Breaker(v)
			}
		}})
	default:
		if s, ok := n.(*ast.StringNode); ok && s.Value == breakerOff {
			*to = 0
			return
		}
		r.fail(n, path, "%s is neither a mapping nor off: write {errors: 5} or off", n.GetToken().Value)
	}
}

func (r *reader) hook(n ast.Node, path string) ReleaseHook {
	h := ReleaseHook{Timeout: Duration(10 * time.Second)}
	count := 0
	moments := func(to *[]string, choices ...string) func(ast.Node, string) {
		return func(n ast.Node, path string) {
			r.list(n, path, func(n ast.Node, path string) {
				var s string
				if r.oneOf(n, path, &s, choices...); s != "" {
					*to = append(*to, s)
				}
			})
		}
	}
	r.fields(n, path,
		field{"name", true, func(n ast.Node, path string) { h.Name, _ = r.text(n, path) }},
		field{"before", false, moments(&h.Before, "start", "step", "promote")},
		field{"after", false, moments(&h.After, "start", "step", "pause", "promote", "rollback", "abort", "undo")},
		field{"url", false, func(n ast.Node, path string) { count++; r.url(n, path, &h.URL) }},
		field{"command", false, func(n ast.Node, path string) { count++; h.Command = r.command(n, path) }},
		field{"timeout", false, func(n ast.Node, path string) { r.duration(n, path, &h.Timeout) }},
	)
	r.exactlyOne(n, path, count, "things to do", "url", "command")
	return h
}

// texts reads a list of strings.
func (r *reader) texts(n ast.Node, path string, to *[]string) {
	r.list(n, path, func(n ast.Node, path string) {
		s, _ := r.text(n, path) // keep the places of the others
		*to = append(*to, s)
	})
}

func (r *reader) truth(n ast.Node, path string, to *bool) {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		r.fail(n, path, "must be true or false, not %s", kindOf(n))
		return
	}
	*to = b.Value
}

// number reads any finite number.
func (r *reader) number(n ast.Node, path string) *float64 {
	switch s := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.StringNode:
		// The YAML parser takes 1e-7, which JSON may hold, for a text.
		if s.GetToken().Type == token.SingleQuoteType || s.GetToken().Type == token.DoubleQuoteType {
			break
		}
		v, err := strconv.ParseFloat(s.GetToken().Value, 64)
		if err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) {
			return &v
		}
	}
	r.fail(n, path, "must be a number, not %s: write it as in 0.5", kindOf(n))
	return nil
}

func (r *reader) url(n ast.Node, path string, to *string) {
	s, ok := r.text(n, path)
	if !ok {
		return
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		r.fail(n, path, "%q is not a URL: write it as in http://127.0.0.1:8080/check", s)
	case u.User != nil:
		r.fail(n, path, "holds a password that everybody could read here: let a proxy on this host add it")
	default:
		*to = s
	}
}

// durationOrNone is duration for a time that may be "0s".
func (r *reader) durationOrNone(n ast.Node, path string, to *Duration) {
	if s, ok := n.(*ast.StringNode); ok {
		if d, err := time.ParseDuration(s.Value); err == nil && d == 0 {
			*to = 0
			return
		}
	}
	r.duration(n, path, to)
}
