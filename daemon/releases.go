package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/conduct"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/rollout"
	"siskin.dev/siskin/rollout/history"
)

// handover is how long the leases of releases last over a planned restart.
const handover = time.Minute

// startConductor makes what carries releases out, with the states that were
// saved. It begins with the first conductAll.
func (d *daemon) startConductor() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read the id of this boot: %w", err)
	}
	id := strings.TrimSpace(string(boot))
	tell := func(warn bool, object, reason, message string) {
		if warn {
			d.events.warn(object, reason, message)
		} else {
			d.events.normal(object, reason, message)
		}
	}
	d.history = history.Open(d.opts.historyPath(), history.Options{
		Loud: func(warn bool, reason, message string) { tell(warn, "daemon", reason, message) },
	})
	d.conductor = conduct.New(conduct.Options{
		Traffic: &mover{d: d, runs: map[string]int{}, cut: map[string]int{}}, Store: d.history, Logger: d.log, Handover: handover,
		Now:   func() rollout.Time { return now(id) },
		Event: tell, Booked: d.booked, Forgotten: d.forgetPromotion,
	})
	var phases []string
	for _, p := range rollout.Phases() {
		phases = append(phases, p.String())
	}
	return metrics.NewReleases(d.registry, phases, d.releasesMeasured)
}

// releasesMeasured are the releases as metrics show them.
func (d *daemon) releasesMeasured() []metrics.Release {
	var out []metrics.Release
	for _, s := range d.conductor.Statuses() {
		if s.Document == nil {
			continue
		}
		r := metrics.Release{Name: s.Document.Metadata.Name, Phase: s.State.Phase.String(), Lease: leaseLeft(s.Kernel)}
		if b := breakerText(s); b != breakerOff {
			r.Breaker = new(b == breakerOpen)
		}
		out = append(out, r)
	}
	return out
}

// leaseLeft is what is left of a release's lease, nil where it has none.
func leaseLeft(k rollout.Kernel) *time.Duration {
	switch {
	case k.Leased && k.LeaseUntil > 0:
		return new(max(0, k.LeaseUntil-time.Duration(bpf.BootNow())))
	case k.Latched == rollout.LeaseEnded:
		return new(time.Duration)
	}
	return nil
}

// booked counts a decision.
func (d *daemon) booked(dec rollout.Decision, release string) {
	d.counters.Decisions.WithLabelValues(release, dec.To.String(), string(dec.Cause)).Inc()
}

// forgetPromotion drops what a deleted release has promoted: another one may get
// its name.
func (d *daemon) forgetPromotion(release string) {
	d.writing.Lock()
	defer d.writing.Unlock()
	now := d.intent()
	if _, ok := now.promoted[release]; !ok || now.releases[release] != nil {
		return
	}
	next := now.clone()
	delete(next.promoted, release)
	if err := d.adopt(next); err != nil {
		d.saveFailed(err)
	}
}

// conductAll gives the conductor the releases as they shall be.
func (d *daemon) conductAll() {
	shall := d.intent()
	for _, r := range shall.sortedReleases() {
		d.conductor.Set(r, shall.of(r))
	}
	d.conductor.Began()
}

// endStrays takes back what the kernel does for releases that nobody knows: it
// would go on without anyone who judges.
func (d *daemon) endStrays() {
	n, err := d.rec.EndStrayReleases()
	if err != nil {
		d.events.warn("daemon", "ReleaseFailing", "take back the weights of releases that nobody knows: "+err.Error())
	}
	if n > 0 {
		d.events.warn("daemon", "StrayReleases", plural(n, "release")+" that nobody knows had weights in the kernel: everything of them is at stable")
	}
}

func (c control) Releases(context.Context) ([]api.ReleaseView, error) {
	out := []api.ReleaseView{}
	for _, s := range c.d.conductor.Statuses() {
		if s.Document != nil {
			out = append(out, c.d.releaseView(s))
		}
	}
	return out, nil
}

func (c control) Release(_ context.Context, name string) (api.ReleaseView, error) {
	for _, s := range c.d.conductor.Statuses() {
		if s.Document == nil || s.Document.Metadata.Name != name {
			continue
		}
		v := c.d.releaseView(s)
		decisions, err := c.d.history.Decisions(name, 0)
		v.HistoryIncomplete = err != nil
		v.History = []api.DecisionView{}
		for _, d := range decisions {
			v.History = append(v.History, decisionView(d))
		}
		addHistory(&v)
		return v, nil
	}
	return api.ReleaseView{}, fmt.Errorf("release %s: %w", name, api.ErrNotFound)
}

func (c control) DriveRelease(ctx context.Context, name, verb string, full bool) (api.ReleaseView, error) {
	verbs := map[string]rollout.Verb{
		api.VerbStart: rollout.Start, api.VerbPause: rollout.Pause, api.VerbResume: rollout.Resume, api.VerbPromote: rollout.Promote,
		api.VerbAbort: rollout.Abort, api.VerbRetry: rollout.Retry, api.VerbUndo: rollout.Undo,
	}
	v, ok := verbs[verb]
	if !ok {
		return api.ReleaseView{}, fmt.Errorf("%w: %q is nothing that a release can do", api.ErrInvalid, verb)
	}
	if full {
		v = rollout.PromoteFull
	}
	if err := c.d.conductor.Command(ctx, name, v, api.Caller(ctx)); err != nil {
		return api.ReleaseView{}, err
	}
	return c.Release(ctx, name)
}

func (c control) Report(_ context.Context, service, version string, o api.Outcomes) error {
	s := c.d.intent().services[service]
	if s == nil {
		return fmt.Errorf("service %s: %w", service, api.ErrNotFound)
	}
	if _, ok := s.Spec.Versions[version]; !ok {
		names := slices.Sorted(maps.Keys(s.Spec.Versions))
		return fmt.Errorf("service %s has no version %q, it has %s: %w", service, version, strings.Join(names, ", "), api.ErrNotFound)
	}
	if c.d.conductor.Report(service, version, analysis.Outcomes{Success: o.Success, Failure: o.Failure}) == 0 {
		return fmt.Errorf("%w: no release of %s that runs judges by reported outcomes: add a check reported: {}", api.ErrConflict, service)
	}
	return nil
}
