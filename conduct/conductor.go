// Package conduct carries releases out: it looks at the kernel, asks the judge
// (analysis), lets the state machine (rollout) decide, and does what that says.
// Each release has a loop of its own, so that none waits for another's.
package conduct

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/rollout"
	"siskin.dev/siskin/rollout/history"
)

// Options are what a Conductor works with.
type Options struct {
	Traffic Traffic
	Store   *history.Store
	Logger  *slog.Logger
	Now     func() rollout.Time
	// Event tells people; Booked is told of every decision.
	Event  func(warn bool, object, reason, message string)
	Booked func(d rollout.Decision, release string)
	// Forgotten is told when nothing of a deleted release is left.
	Forgotten func(release string)
	// Handover is how long leases last over a planned restart.
	Handover time.Duration
}

// A Conductor carries releases out. Its methods may be called from several
// goroutines.
type Conductor struct {
	o      Options
	ctx    context.Context
	stop   context.CancelFunc
	leases *leases
	wg     sync.WaitGroup

	mu      sync.Mutex
	runners map[string]*runner
	began   bool
}

// New returns a Conductor that conducts nothing yet. Close ends it.
func New(o Options) *Conductor {
	ctx, stop := context.WithCancel(context.Background())
	c := &Conductor{
		o: o, ctx: ctx, stop: stop, leases: newLeases(o.Traffic, o.Logger),
		runners: map[string]*runner{},
	}
	c.wg.Go(func() { c.leases.run(ctx) })
	return c
}

// Close ends all loops, and leaves the kernel as it is; leases last for the
// handover. The store is not closed.
func (c *Conductor) Close() {
	c.leases.handover(c.o.Handover)
	c.stop()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.runners {
		r.hooks.wg.Wait()
	}
}

// Set makes a release part of what is conducted, or changes it. services are
// those that it changes, as they are desired.
func (c *Conductor) Set(doc *api.Release, services []*api.Service) {
	name := doc.Metadata.Name
	plan, fault := planOf(doc, services)
	c.mu.Lock()
	r := c.runners[name]
	fresh := r == nil || r.ended()
	if fresh {
		state, known := c.o.Store.States()[name]
		state.Lost = state.Lost || !known && !c.began && c.o.Store.Lost()
		r = c.newRunner(name, state)
		c.runners[name] = r
	}
	c.mu.Unlock() // what follows waits for the kernel
	r.mu.Lock()
	r.doc, r.plan, r.fault, r.deleted = doc, plan, fault, false
	r.mu.Unlock()
	if fresh {
		c.resume(r)
		c.wg.Go(func() { r.loop(c.ctx) })
	}
	r.poke()
}

// Began tells that all releases from before the start were set: those that come
// now are new.
func (c *Conductor) Began() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = true
}

// resume takes up the lease of a release that runs, before its loop looks.
func (c *Conductor) resume(r *runner) {
	p := r.state.Plan
	if !r.state.Phase.Active() || !r.state.Armed {
		return
	}
	if err := c.o.Traffic.Resume(r.target(p), r.state.Run); err != nil {
		c.o.Logger.Warn("the kernel does not know a release that ran", "release", r.name, "error", err)
		return
	}
	if p.FailSafe && r.state.Phase != rollout.RollingBack {
		c.leases.keep(r.target(p), p.Lease)
	}
}

// Delete takes a release away. One that runs is rolled back first.
func (c *Conductor) Delete(name string) {
	c.mu.Lock()
	r := c.runners[name]
	c.mu.Unlock()
	if r != nil {
		r.mu.Lock()
		r.deleted = true
		r.mu.Unlock()
		r.poke()
	}
}

func (r *runner) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// Command gives a person's command to a release, and returns when it was taken
// or refused.
func (c *Conductor) Command(ctx context.Context, name string, verb rollout.Verb, by string) error {
	c.mu.Lock()
	r := c.runners[name]
	c.mu.Unlock()
	if r == nil {
		return fmt.Errorf("release %s: %w", name, api.ErrNotFound)
	}
	reply := make(chan error, 1)
	r.mu.Lock()
	if r.gone {
		r.mu.Unlock()
		return fmt.Errorf("release %s: %w", name, api.ErrNotFound)
	}
	r.replies[r.give(rollout.Command{Verb: verb, By: by})] = reply
	r.mu.Unlock()
	r.poke()
	select {
	case err := <-reply:
		if err != nil {
			return fmt.Errorf("%w: %w", api.ErrConflict, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give adds a command to those that the next look carries out, and returns its
// ID. mu is held.
func (r *runner) give(c rollout.Command) string {
	r.serial++
	c.ID = strconv.Itoa(r.serial)
	r.commands = append(r.commands, c)
	return c.ID
}

// RolledBack tells the releases that hold one of the services that a person has
// given everything of those to stable, with the command why: they end, too. It
// does not wait for that.
func (c *Conductor) RolledBack(services []string, by, why string) {
	c.mu.Lock()
	runners := slices.Collect(maps.Values(c.runners))
	c.mu.Unlock()
	for _, r := range runners {
		r.mu.Lock()
		s := r.status.State
		holds := s.Phase.Active() && slices.ContainsFunc(s.Plan.Services, func(name string) bool { return slices.Contains(services, name) })
		if holds {
			r.give(rollout.Command{Verb: rollout.TakeBack, By: by, Why: why})
		}
		r.mu.Unlock()
		if holds {
			r.poke()
		}
	}
}

// Report books outcomes that somebody reported of a version of a service, for
// every release of it that runs. It returns how many there are.
func (c *Conductor) Report(service, version string, o analysis.Outcomes) int {
	c.mu.Lock()
	runners := slices.Collect(maps.Values(c.runners))
	c.mu.Unlock()
	n := 0
	for _, r := range runners {
		r.mu.Lock()
		p := r.status.State.Plan
		if r.status.State.Phase.Active() && slices.Contains(p.Services, service) {
			switch version {
			case p.Version:
				r.reports, n = append(r.reports, report{version: o}), n+1
			case stable:
				r.reports, n = append(r.reports, report{stable: o}), n+1
			}
		}
		r.mu.Unlock()
	}
	return n
}

const stable = "stable"

// Statuses are all releases, in the order of their names.
func (c *Conductor) Statuses() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Status
	for _, name := range slices.Sorted(maps.Keys(c.runners)) {
		r := c.runners[name]
		r.mu.Lock()
		if !r.gone {
			out = append(out, r.status)
		}
		r.mu.Unlock()
	}
	return out
}

// Claims are what the releases hold.
func (c *Conductor) Claims() []rollout.Claim {
	var out []rollout.Claim
	for _, s := range c.Statuses() {
		out = append(out, s.State.Claim())
	}
	return out
}

func (c *Conductor) holder(name string, services []string) (string, string) {
	return rollout.Claimed(name, services, c.Claims())
}
