package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/health"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/steering"
)

// expectHealth says, before the reconciler gets the services, how their backends
// fare, and returns what is to be probed. A backend that is known goes on as it
// was, also over a restart and from version to version; a new one is given
// connections when it has answered.
func (d *daemon) expectHealth(services documents) map[health.Backend]health.Target {
	d.faring.Lock()
	defer d.faring.Unlock()
	known := steering.StatesOf(d.rec.Status())
	elsewhere := map[steering.BackendName]steering.BackendState{} // without the version
	for name, s := range known {
		name.Version = ""
		elsewhere[name] = s
	}
	targets := map[health.Backend]health.Target{}
	states := map[steering.BackendName]steering.BackendState{}
	for service, doc := range services {
		check := doc.Spec.HealthCheck
		for version, v := range doc.Spec.Versions {
			for _, b := range v.Backends {
				name := steering.BackendName{Service: service, Version: version, Addr: unmapped(b.Address)}
				state, ok := known[name]
				if check == nil {
					if ok && state != steering.Active {
						states[name] = steering.Active // nobody asks any more
					}
					continue
				}
				if !ok {
					if state, ok = elsewhere[steering.BackendName{Service: service, Addr: name.Addr}]; !ok {
						state = steering.Starting
					}
				}
				if r, ok := d.checker.Report(health.Backend(name)); ok {
					state = stateOf(r.State)
				}
				states[name] = state
				targets[health.Backend(name)] = health.Target{Probe: probeOf(check), Rules: rulesOf(check), Known: knownOf(state)}
			}
		}
	}
	// What fails here fails in the Update, too.
	_ = d.rec.SetStates(states)
	return targets
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func stateOf(s health.State) steering.BackendState {
	switch s {
	case health.Starting:
		return steering.Starting
	case health.Down:
		return steering.Down
	}
	return steering.Active
}

func knownOf(s steering.BackendState) health.State {
	switch s {
	case steering.Starting:
		return health.Starting
	case steering.Down:
		return health.Down
	}
	return health.Up
}

func probeOf(c *api.HealthCheck) health.Probe {
	switch {
	case c.HTTP != nil:
		return health.HTTP{Path: c.HTTP.Path, Host: c.HTTP.Host, Expect: c.HTTP.Expect}
	case c.GRPC != nil:
		return health.GRPC{Service: c.GRPC.Service}
	case c.Exec != nil:
		return health.Exec{Command: c.Exec.Command}
	}
	return health.TCP{}
}

func rulesOf(c *api.HealthCheck) health.Rules {
	r := health.Rules{
		Interval: time.Duration(c.Interval), Timeout: time.Duration(c.Timeout), Rise: c.Rise, Fall: c.Fall,
		StartInterval: time.Duration(c.Interval), StartFailures: c.Fall,
	}
	if s := c.Startup; s != nil {
		r.StartInterval, r.StartFailures = time.Duration(s.Interval), s.FailureThreshold
	}
	return r
}

// followHealth brings what the checks find into the tables until ctx ends.
func (d *daemon) followHealth(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.checker.Changed():
			d.takeHealth()
		}
	}
}

// takeHealth carries out all changes that there are with one flip a table, and
// tells of them.
func (d *daemon) takeHealth() {
	d.faring.Lock()
	changes := d.checker.Take()
	states := map[steering.BackendName]steering.BackendState{}
	for _, ch := range changes {
		states[steering.BackendName(ch.Backend)] = stateOf(ch.To)
	}
	err := d.rec.SetStates(states)
	d.faring.Unlock()
	flipped := time.Now()
	if err != nil {
		d.retry.Store(true)
	}
	services := map[string]bool{}
	for _, ch := range changes {
		services[ch.Service] = true
		d.tellChange(ch, flipped.Sub(ch.At), err)
	}
	d.tellLapses(services)
}

// tellChange tells of a backend; took is from its last result to the flip.
func (d *daemon) tellChange(ch health.Change, took time.Duration, err error) {
	after := fmt.Sprintf("%s's table changed %s after the last one", ch.Version, took.Round(10*time.Microsecond))
	if err != nil {
		after = fmt.Sprintf("%s's table has not changed yet, which is tried again: %v", ch.Version, err)
	}
	object := "service/" + ch.Service
	switch {
	case ch.To == health.Up && ch.From == health.Starting:
		d.events.normal(object, "BackendUp", fmt.Sprintf("backend %s is up: it has answered after its start; %s", ch.Addr, after))
	case ch.To == health.Up:
		d.events.normal(object, "BackendUp", fmt.Sprintf("backend %s is up: %s; %s", ch.Addr, times(ch.Row, "success", "successes"), after))
	default:
		what := times(-ch.Row, "failure", "failures")
		if ch.From == health.Starting {
			what += " since it came"
		}
		d.events.warn(object, "BackendDown", fmt.Sprintf("backend %s is down: %s, last: %s; %s", ch.Addr, what, ch.Error, after))
	}
}

func times(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// tellLapses tells which versions of the services have no backend left, or have
// one again.
func (d *daemon) tellLapses(services map[string]bool) {
	now := map[string]map[lapse]bool{}
	for _, s := range d.rec.StatusOf(func(s *steering.ServiceStatus) bool { return !s.Retired && services[s.Name] }) {
		now[s.Name] = lapsesOf(s)
	}
	d.mu.Lock()
	before := d.lapses
	d.lapses = map[string]map[lapse]bool{}
	for name, l := range before {
		if !services[name] {
			d.lapses[name] = l
		}
	}
	for name, l := range now {
		d.lapses[name] = l
	}
	d.mu.Unlock()
	for name := range services {
		object := "service/" + name
		for l := range now[name] {
			if !before[name][l] {
				d.events.warn(object, l.reason(), problemText(l.check()))
			}
		}
		for l := range before[name] {
			if !now[name][l] {
				d.events.normal(object, "HealthRestored", fmt.Sprintf("%s of %s is given connections by health again", l.family, l.version))
			}
		}
	}
}

// A lapse is a version that no backend of one family answers for.
type lapse struct {
	version string
	family  steering.Family
	total   int
}

func lapsesOf(s steering.ServiceStatus) map[lapse]bool {
	out := map[lapse]bool{}
	for _, h := range s.Health() {
		if h.None() {
			out[lapse{h.Version, h.Family, h.Total}] = true
		}
	}
	return out
}

func (l lapse) reason() string {
	if l.version == steering.Stable {
		return "HealthIgnored"
	}
	return "VersionDown"
}

// check is the lapse as the doctor tells it.
func (l lapse) check() host.Check {
	out := host.Check{
		Name:   "health",
		Status: host.Fail,
		Detail: fmt.Sprintf("none of the %s backends of %s (%d) answers its check, so its share of connections goes to stable", l.family, l.version, l.total),
		Remedy: "siskin get backends shows the last errors",
	}
	if l.version == steering.Stable {
		out.Detail = fmt.Sprintf("none of the %s backends of stable (%d) answers its check, so health is ignored and all of them are given connections", l.family, l.total)
		out.Remedy = "siskin get backends shows the last errors; if clients are served well, it is the check that is wrong"
	}
	return out
}

// examineHealth is what the doctor says about backends.
func (d *daemon) examineHealth() []host.Check {
	var out []host.Check
	for _, s := range d.rec.Status() {
		for _, h := range s.Health() {
			if !s.Retired && h.None() {
				c := lapse{h.Version, h.Family, h.Total}.check()
				c.Detail = "service " + s.Name + ": " + c.Detail
				out = append(out, c)
			}
		}
	}
	return out
}
