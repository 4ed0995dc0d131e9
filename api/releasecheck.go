package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"siskin.dev/siskin/steering"
)

// minLease is the shortest lease: the daemon renews it several times before it
// ends, and must not lose it to a busy processor.
const minLease = Duration(time.Second)

// faults are what is wrong in the release itself.
func (r *Release) faults() []steering.FieldError {
	f := releaseFaults{release: r}
	if p := steering.LabelProblem(r.Metadata.Name); p != "" {
		f.add("metadata.name", "%s", p)
	}
	f.targets()
	f.steps()
	f.checks()
	f.limits()
	f.hooks()
	return f.found
}

// releaseFaults collects the faults of one release.
type releaseFaults struct {
	release *Release
	found   []steering.FieldError
}

func (f *releaseFaults) add(field, format string, args ...any) {
	f.found = append(f.found, steering.FieldError{Service: f.release.Metadata.Name, Field: field, Problem: fmt.Sprintf(format, args...)})
}

// name checks one of several names that must differ.
func (f *releaseFaults) name(field, name string, seen map[string]bool) {
	switch p := steering.LabelProblem(name); {
	case p != "":
		f.add(field, "%s", p)
	case seen[name]:
		f.add(field, "%s is listed twice: remove one", name)
	}
	seen[name] = true
}

func (f *releaseFaults) targets() {
	spec, seen := f.release.Spec, map[string]bool{}
	if len(spec.Services) == 0 {
		f.add("spec.services", "is empty: name the services that change")
	}
	for i, name := range spec.Services {
		f.name(fmt.Sprintf("spec.services[%d]", i), name, seen)
	}
	switch p := steering.LabelProblem(spec.Version); {
	case spec.Version == steering.Stable:
		f.add("spec.version", "stable is what the release takes the place of: name the new version")
	case p != "":
		f.add("spec.version", "%s", p)
	}
}

func (f *releaseFaults) steps() {
	s := f.release.Spec.Strategy
	if s.BlueGreen != nil && s.BlueGreen.Control >= whole {
		f.add("spec.strategy.blueGreen.control", "%s leaves nothing for the new version: write less, such as 1%%", s.BlueGreen.Control)
	}
	if s.Canary == nil {
		return
	}
	const list = "spec.strategy.canary.steps"
	if len(s.Canary.Steps) == 0 {
		f.add(list, "is empty: write at least {weight: 5%%, hold: 5m}")
	}
	var last Share
	for i, step := range s.Canary.Steps {
		field := fmt.Sprintf("%s[%d]", list, i)
		switch {
		case step.Weight == 0 && i == 0:
			f.add(field, "is the first and has no weight: give it one, such as 1%%")
		case step.Weight != 0 && step.Weight < last:
			f.add(field+".weight", "%s is less than the %s of the step before: steps go up; a rollback goes down", step.Weight, last)
		}
		last = max(last, step.Weight)
	}
}

func (f *releaseFaults) checks() {
	spec, seen, watched := f.release.Spec, map[string]bool{}, ""
	for i, c := range spec.Checks {
		field := fmt.Sprintf("spec.checks[%d]", i)
		f.name(field+".name", c.Name, seen)
		f.check(field, c)
		switch {
		case !c.WatchesLatency():
		case watched == "":
			watched = c.Name
		default:
			f.add(field+".compare", "compares latencies as check %s does, and the kernel watches one threshold a release: remove one of them, or write judge: kayenta here", watched)
		}
	}
	if b := spec.Strategy.BlueGreen; b != nil && b.Control == 0 {
		if i := slices.IndexFunc(spec.Checks, func(c ReleaseCheck) bool { return !c.absolute() }); i >= 0 {
			f.add(fmt.Sprintf("spec.checks[%d]", i),
				"compares with stable, which gets nothing under blueGreen: add control: 1%% to the strategy, or write a bound such as errorRate: {max: 0.1%%}")
		} else if len(spec.Checks) == 0 {
			f.add("spec.checks", "is empty, and without a control nothing can be compared: add one such as errorRate: {max: 0.1%%}, or control: 1%% to the strategy")
		}
	}
}

func (f *releaseFaults) check(field string, c ReleaseCheck) {
	switch {
	case c.ErrorRate != nil:
		if c.ErrorRate.Max >= whole {
			f.add(field+".errorRate.max", "100%% bounds nothing: write less")
		}
	case c.Compare != nil:
		f.compare(field+".compare", c.Compare)
	case c.Webhook != nil:
		f.asked(field+".webhook", c.Webhook.Interval, c.Webhook.Timeout)
	case c.Prometheus != nil:
		f.prometheus(field+".prometheus", c.Prometheus)
	}
}

func (f *releaseFaults) compare(field string, c *CompareCheck) {
	latency := c.Metric == "latency"
	switch {
	case c.Metric == "": // could not be read
	case latency && c.Quantile == 0:
		f.add(field+".quantile", "is missing: write the quantile to compare, such as 99%%")
	case latency && c.Quantile >= whole:
		f.add(field+".quantile", "100%% is the slowest request of all, which chance alone decides: write less, such as 99%%")
	case !latency && c.Quantile != 0:
		f.add(field+".quantile", "only latency has quantiles: remove it")
	case !latency && c.Tolerance != 0:
		f.add(field+".tolerance", "only latency has a tolerance: remove it")
	}
}

func (f *releaseFaults) prometheus(field string, c *PrometheusCheck) {
	f.asked(field, c.Interval, c.Timeout)
	bounded := c.Max != nil || c.Min != nil
	switch {
	case c.Query == "":
		f.add(field+".query", "is empty: write a query that gives one number")
	case bounded && c.Control != "":
		f.add(field, "has both bounds and a control: write either max and min, or control and judge: kayenta")
	case !bounded && c.Control == "":
		f.add(field, "has nothing to judge by: write max or min, or control with the same query for stable and judge: kayenta")
	case c.Control != "" && c.Judge == "":
		f.add(field+".judge", "is missing: samples are compared by judge: kayenta")
	case c.Control == "" && c.Judge != "":
		f.add(field+".judge", "judges by a control, and there is none: remove it, or write control with the same query for stable")
	case c.Max != nil && c.Min != nil && *c.Min > *c.Max:
		f.add(field+".min", "%g is above max %g: nothing can pass", *c.Min, *c.Max)
	}
}

// asked checks how often something outside is asked.
func (f *releaseFaults) asked(field string, interval, timeout Duration) {
	if interval < Duration(time.Second) {
		f.add(field+".interval", "%s is too often: write 1s or more", time.Duration(interval))
	}
	if timeout > Duration(time.Minute) {
		f.add(field+".timeout", "%s is too long to wait for one answer: write 1m or less", time.Duration(timeout))
	}
}

func (f *releaseFaults) limits() {
	spec := f.release.Spec
	if spec.FalseAlarm == 0 || spec.FalseAlarm > whole/2 {
		f.add("spec.falseAlarm", "%s leaves no way to judge: write a share from 0.01%% to 50%%", spec.FalseAlarm)
	}
	if spec.MaxImpact == 0 {
		f.add("spec.maxImpact", "0%% can never be shown, and no step would end: write at least 0.01%%")
	}
	if spec.Lease < minLease {
		f.add("spec.lease", "%s is too short for the daemon to renew it for sure: write 1s or more", time.Duration(spec.Lease))
	}
	if spec.InconclusiveAfter != 0 && spec.OnInconclusive != "abort" {
		f.add("spec.inconclusiveAfter", "means nothing while onInconclusive is hold: remove it, or write onInconclusive: abort")
	}
	if spec.Rollback.Deadline != 0 && spec.Rollback.Connections != "drain" {
		f.add("spec.rollback.deadline", "means nothing without connections: drain: remove it, or write drain")
	}
}

func (f *releaseFaults) hooks() {
	seen := map[string]bool{}
	for i, h := range f.release.Spec.Hooks {
		field := fmt.Sprintf("spec.hooks[%d]", i)
		f.name(field+".name", h.Name, seen)
		if len(h.Before)+len(h.After) == 0 {
			f.add(field, "has neither before nor after: say when it is called, such as after: [rollback]")
		}
	}
}

// misfits are what does not fit together with the services, those of its own
// that are not among them left out.
func (r *Release) misfits(services []*Service) []steering.FieldError {
	f := releaseFaults{release: r}
	for i, name := range r.Spec.Services {
		s := serviceNamed(services, name)
		if s == nil {
			continue
		}
		if _, ok := s.Spec.Versions[r.Spec.Version]; !ok && r.Spec.Version != "" {
			f.add(fmt.Sprintf("spec.services[%d]", i), "%s has no version %s: it has %s", name, r.Spec.Version,
				strings.Join(versionNames(s.Spec.Versions), ", "))
		}
	}
	return f.found
}

func serviceNamed(services []*Service, name string) *Service {
	i := slices.IndexFunc(services, func(s *Service) bool { return s.Metadata.Name == name })
	if i < 0 {
		return nil
	}
	return services[i]
}

// CheckRelease checks a release against all the services that there are. The
// error is Problems without places; Explain adds those.
func CheckRelease(r *Release, services []*Service) error {
	found := append(r.faults(), r.misfits(services)...)
	for i, name := range r.Spec.Services {
		if serviceNamed(services, name) == nil {
			found = append(found, steering.FieldError{Field: fmt.Sprintf("spec.services[%d]", i),
				Problem: fmt.Sprintf("there is no service %s: apply it first, or in the same file", name)})
		}
	}
	var out Problems
	for _, f := range found {
		out = append(out, Problem{Object: objectOf(KindRelease, r.Metadata.Name), Field: f.Field, Problem: f.Problem})
	}
	return out.orNil()
}

// doubts are what is accepted but may not do what a reader thinks.
func (r *Release) doubts(services []*Service) []steering.FieldError {
	f := releaseFaults{release: r}
	for i, step := range r.Spec.Strategy.Steps() {
		if f.beyondCapacity(i, step.Weight, services) {
			break // the later ones are, too
		}
	}
	if r.Spec.AutoStart && len(r.Spec.Checks) > 0 && r.Spec.Breaker == 0 && !r.Spec.FailSafe {
		f.add("spec.failSafe", "without a lease and a breaker nothing takes the version back while the daemon is gone")
	}
	for _, name := range r.Spec.Services {
		if s := serviceNamed(services, name); s != nil && len(s.Spec.Weights) > 0 {
			f.add("spec.services", "service %s has weights of its own: they go to 0%% when the release starts", name)
		}
	}
	return f.found
}

// beyondCapacity warns of a step that gives the version more than its
// backends' share of all the backends' weights.
func (f *releaseFaults) beyondCapacity(i int, weight Share, services []*Service) bool {
	spec := f.release.Spec
	for _, name := range spec.Services {
		s := serviceNamed(services, name)
		if s == nil {
			continue
		}
		own, all := capacity(s.Spec.Versions[spec.Version]), capacity(s.Spec.Versions[steering.Stable])
		all += own
		if own == 0 || uint64(weight)*all <= uint64(whole)*own {
			continue
		}
		field := fmt.Sprintf("spec.strategy.canary.steps[%d].weight", i)
		if spec.Strategy.BlueGreen != nil {
			if own*2 >= all {
				continue // as many as stable has: they carried it, too
			}
			field = "spec.strategy.blueGreen"
		}
		f.add(field, "%s of service %s goes to backends with %d of %d of the weight: add backends to %s, or they get more than those of stable",
			weight, name, own, all, spec.Version)
		return true
	}
	return false
}

// capacity is the sum of the weights of a version's backends.
func capacity(v VersionSpec) uint64 {
	var sum uint64
	for _, b := range v.Backends {
		sum += uint64(b.Weight)
	}
	return sum
}
