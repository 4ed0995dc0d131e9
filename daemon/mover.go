package daemon

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/conduct"
	"siskin.dev/siskin/rollout"
	"siskin.dev/siskin/steering"
)

// mover is the kernel as releases move it: the conduct.Traffic of this daemon.
type mover struct {
	d *daemon

	mu   sync.Mutex
	runs map[string]int // that the kernel watches, by release
	cut  map[string]int // runs whose rollback has dealt with open connections
}

var _ conduct.Traffic = (*mover)(nil)

// place is where a target's weight is.
type place struct {
	word uint32
	slot uint8
}

// find returns the place of a target's services, and their status.
func (t *mover) find(target conduct.Target) (place, []steering.ServiceStatus, error) {
	status := t.d.rec.Named(target.Services...)
	if len(status) < len(target.Services) {
		return place{}, nil, fmt.Errorf("services %v: %w", target.Services, steering.ErrNoService)
	}
	for _, v := range status[0].Versions {
		if v.Name == target.Version && !v.Retired {
			return place{status[0].Word, v.Slot}, status, nil
		}
	}
	return place{}, nil, fmt.Errorf("service %s: %w: %s", status[0].Name, steering.ErrNoVersion, target.Version)
}

func (t *mover) run(release string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.runs[release]
}

func (t *mover) setRun(release string, run int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs[release] = run
}

func (t *mover) hasCut(release string, run int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	done, ok := t.cut[release]
	return ok && done == run
}

func (t *mover) setCut(release string, run int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cut[release] = run
}

// Look reads what the kernel does.
func (t *mover) Look(target conduct.Target, run int) rollout.Kernel {
	k := t.look(target, run)
	if t.d.rollingBack.Load() > 0 {
		// Whoever is rolling back tells why in a moment, and then it is clear who
		// stored what is seen.
		return rollout.Kernel{}
	}
	return k
}

func (t *mover) look(target conduct.Target, run int) (k rollout.Kernel) {
	at, _, err := t.find(target)
	if err != nil {
		return k
	}
	word := t.d.words.Load(at.word)
	k = rollout.Kernel{
		Known: true, Share: rollout.Share(word.Share(at.slot)), Epoch: word.Epoch(), Cut: t.hasCut(target.Release, run),
	}
	p, promoted := t.d.intent().promoted[target.Release]
	k.Retargeted, k.Settled, k.LastRun = promoted && p.Run == run, t.d.reconciled.Load(), p.Run
	holds, err := t.d.rec.WordOf(target.Release)
	if err != nil || holds != at.word {
		return k
	}
	k.Held, k.Armed = true, t.run(target.Release)
	if b, err := t.d.watched.Breaker(at.word); err == nil {
		k.Closed = int(b.Closed)
	}
	lease := t.d.leases.Load(at.word)
	switch {
	case lease.Tripped():
		k.Latched, k.Evidence = rollout.BreakerTripped, t.evidence(at.word, target.Version)
	case lease.Expired(), lease.Deadline() != 0 && lease.Deadline() <= bpf.BootNow():
		// The kernel latches it at the next connection; it cannot be renewed.
		k.Latched = rollout.LeaseEnded
	default:
		k.Leased, k.LeaseUntil = lease.Deadline() != 0, time.Duration(lease.Deadline())
	}
	return k
}

// evidence says what the breaker saw.
func (t *mover) evidence(word uint32, version string) string {
	b, err := t.d.watched.Breaker(word)
	if err != nil {
		return ""
	}
	ago := time.Duration(bpf.Now() - b.Monotonic).Round(time.Millisecond)
	return fmt.Sprintf("the breaker tripped %s ago in the kernel: %s has had %d errors and its bucket stands at %d, stable %d and %d",
		ago, version, b.Version.Errors, b.Version.Level, b.Stable.Errors, b.Stable.Level)
}

// Arm makes the kernel watch a run.
func (t *mover) Arm(target conduct.Target, run int, w conduct.Watch, terms conduct.Terms) error {
	if err := t.End(target); err != nil {
		return err
	}
	at, _, err := t.find(target)
	if err != nil {
		return err
	}
	t.d.cutoffs.End(at.word)
	var deadline int64
	if terms.Lease > 0 {
		deadline = bpf.BootNow() + int64(terms.Lease)
	}
	failures, err := bpf.FailuresOf(terms.Failures.Statuses(), terms.Failures.Codes())
	if err != nil {
		return err
	}
	_, err = t.d.rec.BeginRelease(steering.Release{
		Name: target.Release, Services: target.Services, Version: target.Version, Seed: fmt.Sprintf("%s/%d", target.Release, run),
		Watch: bpf.Watch{
			ByConnection: terms.ByConnection, Step: uint8(w.Step), Failures: failures,
			Limit: limit32(w.Breaker.Limit), Success: limit32(w.Breaker.Success), Retry: terms.Retry,
		},
		Deadline: deadline,
	})
	if err != nil {
		return err
	}
	t.armCut(at, w.Cut)
	t.setRun(target.Release, run)
	return nil
}

func limit32(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

// armCut says what the kernel's breaker does to open connections.
func (t *mover) armCut(at place, cut rollout.Cut) {
	if grace, cuts := graceOf(cut); cuts {
		t.d.cutoffs.Arm(at.word, bpf.SlotsOf(at.slot), grace)
	} else {
		t.d.cutoffs.Arm(at.word, 0, 0)
	}
}

// graceOf is how long open connections go on; cuts is false where they are left
// alone.
func graceOf(cut rollout.Cut) (grace time.Duration, cuts bool) {
	switch cut.Connections {
	case reset:
		return 0, true
	case drain:
		return cut.Deadline, true
	}
	return 0, false
}

// Resume takes up a run that the kernel knows, after a restart of the daemon.
func (t *mover) Resume(target conduct.Target, run int) error {
	_, err := t.d.rec.ResumeRelease(steering.Release{
		Name: target.Release, Services: target.Services, Version: target.Version, Seed: fmt.Sprintf("%s/%d", target.Release, run),
	})
	if err != nil {
		return err
	}
	t.setRun(target.Release, run)
	return nil
}

// Watch sets what the kernel watches for.
func (t *mover) Watch(target conduct.Target, w conduct.Watch) error {
	word, err := t.d.rec.WordOf(target.Release)
	if err != nil {
		return err
	}
	at, _, err := t.find(target)
	if err != nil {
		return err
	}
	t.d.watched.SetStep(word, uint8(min(w.Step, math.MaxUint8)))
	t.d.watched.SetSlow(word, [2]time.Duration{w.SlowStable, w.SlowVersion})
	t.d.watched.SetBreaker(word, limit32(w.Breaker.Limit), limit32(w.Breaker.Success))
	t.armCut(at, w.Cut)
	return nil
}

// SetWeight stores a weight if the word still has the epoch from.
func (t *mover) SetWeight(target conduct.Target, step int, share rollout.Share, from uint8) error {
	word, err := t.d.rec.WordOf(target.Release)
	if err != nil {
		return err
	}
	if now := t.d.words.Load(word).Epoch(); now != from {
		return fmt.Errorf("the weights are of epoch %d by now, not %d", now, from)
	}
	change, err := t.d.rec.SetShare(target.Release, uint8(min(step, math.MaxUint8)), steering.Share(share))
	if err != nil {
		return err
	}
	t.stored(change)
	return nil
}

// stored does what follows a store.
func (t *mover) stored(c steering.Change) {
	if c.Old != c.New && c.Service != "" {
		t.d.afterStore(t.d.statusOf(c), c)
	}
}

// Rollback stores zero, and then puts the connection policy in force.
func (t *mover) Rollback(target conduct.Target, run int, cut rollout.Cut) error {
	decided := bpf.Now()
	change, err := t.zero(target)
	if err != nil {
		return err
	}
	t.d.counters.RollbackDuration.Observe(float64(change.After-decided) / 1e9)
	if at, _, err := t.find(target); err == nil {
		if grace, cuts := graceOf(cut); cuts {
			t.d.cutoffs.Begin(at.word, bpf.SlotsOf(at.slot), grace)
		} else {
			t.d.cutoffs.End(at.word)
		}
	}
	t.setCut(target.Release, run)
	t.stored(change)
	return nil
}

// zero stores zero.
func (t *mover) zero(target conduct.Target) (steering.Change, error) {
	change, err := t.d.rec.RollbackRelease(target.Release)
	if !errors.Is(err, steering.ErrNotHeld) {
		return change, err
	}
	// Nothing was begun, or the kernel's record is gone: by the services.
	changes, err := t.d.rec.Rollback(target.Services...)
	if len(changes) > 0 {
		change = changes[0]
	}
	return change, err
}

// Zero stores zero, and leaves open connections alone.
func (t *mover) Zero(target conduct.Target) error {
	change, err := t.zero(target)
	if err != nil {
		return err
	}
	t.stored(change)
	return nil
}

// Renew prolongs a lease unless it has ended.
func (t *mover) Renew(target conduct.Target, lease time.Duration) error {
	return t.d.rec.RenewLease(target.Release, bpf.BootNow()+int64(lease))
}

// End gives the weights back. Where the release has none nothing is done.
func (t *mover) End(target conduct.Target) error {
	if err := t.d.rec.EndRelease(target.Release); err != nil && !errors.Is(err, steering.ErrNotHeld) {
		return err
	}
	t.setRun(target.Release, 0)
	return nil
}

// Retarget makes stable lead to the version's backends, or back to its own.
func (t *mover) Retarget(target conduct.Target, run int, back bool) error {
	t.d.writing.Lock()
	defer t.d.writing.Unlock()
	next, err := t.d.intent().promote(target.Release, run, target.Services, target.Version, back)
	if err != nil {
		return err
	}
	if err := t.d.adopt(next); err != nil {
		return err
	}
	return t.d.enforce()
}

// Unfit says why the version cannot serve.
func (t *mover) Unfit(target conduct.Target) string {
	_, status, err := t.find(target)
	if err != nil {
		return err.Error()
	}
	for _, s := range status {
		if h := s.Worst(target.Version); h.None() {
			return fmt.Sprintf("service %s: none of the %d backends of %s is up", s.Name, h.Total, target.Version)
		}
	}
	return ""
}

// Gone says why the backends from before a promotion cannot take over again.
func (t *mover) Gone(target conduct.Target, run int) string {
	p, ok := t.d.intent().promoted[target.Release]
	if !ok || p.Run != run {
		return "nothing is written down of what was stable before"
	}
	for _, name := range slices.Sorted(maps.Keys(p.Before)) {
		service := t.d.intent().services[name]
		if service == nil {
			return fmt.Sprintf("service %s was deleted", name)
		}
		if why := unreachable(service, p.Before[name]); why != "" {
			return fmt.Sprintf("service %s: %s", name, why)
		}
	}
	return ""
}

// now is this moment; bootID names the boot, so that times of different ones are
// not compared.
func now(bootID string) rollout.Time {
	return rollout.Time{BootID: bootID, Boot: time.Duration(bpf.BootNow()), Wall: time.Now()}
}

// unreachable says which of the backends does not answer: only a connection
// tells whether what was given up a while ago still stands.
func unreachable(s *api.Service, backends []api.Backend) string {
	if !slices.ContainsFunc(s.Spec.Frontends, func(f api.Frontend) bool { return f.Proto == steering.TCP }) {
		return "" // datagrams tell nothing
	}
	return firstRefused(backends)
}
