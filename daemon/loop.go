package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// beatEvery is how often the loop looks at everything.
	beatEvery = time.Second
	// hung is how long the loop may be silent before /healthz says so.
	hung = 15 * time.Second
	// stopWithin bounds the end: requests that are going on get so long.
	stopWithin = 5 * time.Second
)

// serve answers and keeps what is in the kernel true until ctx ends.
func (d *daemon) serve(ctx context.Context, doors *doors, changes <-chan struct{}) error {
	d.beat.Store(time.Now().UnixNano())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return doors.serve(ctx, d) })
	group.Go(func() error {
		d.loop(ctx, changes)
		return nil
	})
	group.Go(func() error {
		d.followHealth(ctx)
		return nil
	})
	if _, err := fmt.Fprintf(d.opts.Stdout, "siskin: steering %s on %s\n", plural(len(d.intent().services), "service"), d.attachedNames()); err != nil {
		d.log.Warn("cannot write to stdout", "error", err)
	}
	err := group.Wait()
	d.saveLater()
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// loop looks at everything each second, and at the ways to the backends when
// the network changes.
func (d *daemon) loop(ctx context.Context, changes <-chan struct{}) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	var again backoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			d.beat.Store(time.Now().UnixNano())
			d.followNetwork(ctx)
			continue
		case <-tick.C:
		}
		now := time.Now()
		d.beat.Store(now.UnixNano())
		d.check(now)
		if err := d.rec.Prune(); err != nil {
			d.counters.ReconcileErrors.Inc()
			d.once("prune", err, func() { d.events.warn("daemon", "PruneFailed", err.Error()) })
		} else {
			d.forgetOnce("prune")
		}
		if err := d.followCutoffs(); err != nil {
			d.once("cutoffs", err, func() { d.events.warn("daemon", "CutoffsUnknown", err.Error()) })
		} else {
			d.forgetOnce("cutoffs")
		}
		d.followWaits(now)
		d.forgetConnections(now)
		d.saveLater()
		if again.due(d.retry.Load(), now) || d.hooksMoved.Load() {
			d.followNetwork(ctx)
		}
	}
}

// backoff says when to try again what failed: at once, and then less and less
// often, down to once a minute.
type backoff struct {
	failures int
	wait     time.Time // not before
}

// due tells whether now is the time for a try.
func (b *backoff) due(failed bool, now time.Time) bool {
	switch {
	case !failed:
		*b = backoff{}
		return false
	case now.Before(b.wait):
		return false
	}
	b.failures++
	b.wait = now.Add(min(beatEvery<<min(b.failures, 6), time.Minute))
	return true
}

// followNetwork brings maps and hooks up to date with the network.
func (d *daemon) followNetwork(ctx context.Context) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if ctx.Err() != nil {
		return // the end came while a change was being made
	}
	if err := d.network.Refresh(); err != nil {
		d.log.Warn("cannot read the default routes", "error", err)
	}
	// What fails is told of by events, and tried again.
	_ = d.enforce(d.intent().services.sorted()...)
}

// saveLater writes what changed without waiting for the disk then: the
// baselines, which are only for showing.
func (d *daemon) saveLater() {
	if !d.unsaved.Load() {
		return
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	d.save()
}

// healthy returns an error when the daemon does not do its work.
func (d *daemon) healthy() error {
	if age := time.Since(time.Unix(0, d.beat.Load())); age > hung {
		return fmt.Errorf("the loop has not gone round for %s", age.Round(time.Second))
	}
	return nil
}

// ready returns an error when connections may not be steered as they should.
func (d *daemon) ready() error {
	var errs []error
	if d.attached.Load() == 0 {
		errs = append(errs, errors.New("attached to no interface"))
	}
	d.mu.Lock()
	errs = append(errs, d.refused)
	d.mu.Unlock()
	if !d.reconciled.Load() {
		errs = append(errs, errors.New("the kernel's maps are not as the documents say; the events tell why"))
	}
	return errors.Join(errs...)
}
