package steering

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"siskin.dev/siskin/bpf"
)

var (
	// ErrNoService says that no service of a name takes connections.
	ErrNoService = errors.New("no such service")
	// ErrNoVersion says that a service has no version of a name.
	ErrNoVersion = errors.New("no such version")
)

// A Change is one change of a service's weights, as the kernel sees it.
type Change struct {
	Service string
	// Before and After enclose the store: CLOCK_MONOTONIC, nanoseconds. It is
	// the clock of the data path, so a flow that was opened after After was
	// chosen by New.
	Before, After int64
	Old, New      Word
	Shares        map[string]Share // what each version has now, stable too
}

// SetWeights gives the named versions new shares, with one atomic store; the
// other versions keep theirs, and stable gets the rest. Services of one group
// share the word, so this sets all of them. It never waits for an Update.
//
// Errors: ErrNoService, ErrNoVersion, ErrOverWhole, ErrHeld.
func (r *Reconciler) SetWeights(service string, shares map[string]Share) (Change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.store(service, shares)
	if err != nil {
		return c, fmt.Errorf("service %s: set weights: %w", service, err)
	}
	for name := range r.routes.byWord[r.routes.byName[service].word] {
		for v := range shares {
			r.overrule(name, v)
		}
	}
	return c, nil
}

// want notes which weights are desired from now on.
func (r *Reconciler) want(services []Service) {
	wanted := make(map[string]map[string]Share, len(services))
	for _, s := range services {
		wanted[s.Name] = map[string]Share{}
		for _, v := range s.Versions {
			wanted[s.Name][v.Name] = s.Weights[v.Name]
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = wanted
}

// overrule lets what is done by hand now win over a desired weight that is not
// carried out yet: else a retry would undo a rollback. mu is held.
func (r *Reconciler) overrule(service, version string) {
	share, ok := r.wanted[service][version]
	if !ok {
		return
	}
	if r.applied[service] == nil {
		r.applied[service] = map[string]Share{}
	}
	r.applied[service][version] = share
	delete(r.adopt[service], version)
}

// overruleAll does that for all versions of a service.
func (r *Reconciler) overruleAll(service string) {
	for v := range r.wanted[service] {
		r.overrule(service, v)
	}
}

// store changes a word; mu is held.
func (r *Reconciler) store(service string, shares map[string]Share) (Change, error) {
	t := r.routes.byName[service]
	if t == nil {
		return Change{}, ErrNoService
	}
	if err := r.free(t.word); err != nil {
		return Change{}, err
	}
	old := r.maps.Words.Load(t.word)
	next, err := t.merge(old, shares)
	if err != nil {
		return Change{}, err
	}
	c := Change{Service: service, Old: old, New: next, Before: bpf.Now()}
	if next != old {
		r.maps.Words.Store(t.word, next)
	}
	c.After = bpf.Now()
	c.Shares = t.shares(next)
	return c, nil
}

// Rollback gives stable all connections of the named services, or of all
// services where none is named. All words are stored first, in a loop that
// does nothing else. Services that are not known are an error, and stop no
// other from going back.
func (r *Reconciler) Rollback(services ...string) ([]Change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := bpf.Now()
	olds := r.zero(services)
	after := bpf.Now()
	if len(services) == 0 {
		services = slices.Sorted(maps.Keys(r.routes.byName))
		for name := range r.wanted { // also what is not there yet
			r.overruleAll(name)
		}
	}
	var errs []error
	changes := make([]Change, 0, len(services))
	for _, name := range services {
		t := r.routes.byName[name]
		if t == nil {
			r.overruleAll(name)
			errs = append(errs, fmt.Errorf("service %s: roll back: %w", name, ErrNoService))
			continue
		}
		for other := range r.routes.byWord[t.word] {
			r.overruleAll(other)
		}
		old := olds[t.word]
		changes = append(changes, Change{
			Service: name, Before: before, After: after, Old: old, New: old.Zeroed(), Shares: t.shares(old.Zeroed()),
		})
	}
	return changes, errors.Join(errs...)
}

// zero gives stable the words of the named services, or all words, and returns
// what they were. mu is held.
func (r *Reconciler) zero(services []string) map[uint32]Word {
	n := len(services)
	if n == 0 {
		n = len(r.routes.byWord)
	}
	olds := make(map[uint32]Word, n)
	zero := func(word uint32) {
		if _, done := olds[word]; done {
			return
		}
		olds[word], _ = r.zeroWord(word)
	}
	for _, name := range services {
		if t := r.routes.byName[name]; t != nil {
			zero(t.word)
		}
	}
	if len(services) == 0 {
		for word := range r.routes.byWord {
			zero(word)
		}
	}
	return olds
}

// openRoute lets the weights of a service be set: all its versions lead
// somewhere now.
func (u *update) openRoute(plan *servicePlan) {
	t := &route{word: plan.record.Word, slots: maps.Clone(plan.slots)}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.routes.set(plan.desired.Name, t)
}

// closeVersions takes the connections from the versions that go away, before
// any table does.
func (u *update) closeVersions(plan *servicePlan) {
	u.mu.Lock()
	defer u.mu.Unlock()
	name := plan.desired.Name
	old := u.routes.byName[name]
	known := old != nil
	if !known { // it took no connections: whatever its word holds is not its own
		old = &route{word: plan.record.Word}
	}
	kept := &route{word: old.word, slots: map[string]uint8{}}
	for v, slot := range old.slots {
		if _, ok := plan.slots[v]; ok {
			kept.slots[v] = slot
			continue
		}
		delete(u.applied[name], v)
		delete(u.adopt[name], v)
	}
	if known {
		u.routes.set(name, kept)
	}
	held := u.routes.held(old.word)
	for {
		w := u.maps.Words.Load(old.word)
		shares := w.Shares()
		for i := range shares {
			if !held[i+1] {
				shares[i] = 0
			}
		}
		// Shares only went down, so they still fit.
		next, err := w.Next(shares)
		if err != nil || next == w || u.maps.Words.Swap(old.word, w, next) {
			return
		}
	}
}

// closeService takes the weights of a deleted service back.
func (u *update) closeService(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.routes.byName[name]
	if t == nil {
		return
	}
	u.routes.drop(name)
	delete(u.applied, name)
	delete(u.adopt, name)
	if !u.routes.others(name, t.word, "") {
		u.zeroWord(t.word)
	}
}

// applyWeights sets the weights whose desired value changed since the last
// Update that applied it. What was set by hand meanwhile stays where the
// document says what it said before.
func (u *update) applyWeights(plan *servicePlan) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	name, want := plan.desired.Name, plan.desired.Weights
	if u.applied[name] == nil {
		u.applied[name] = map[string]Share{}
	}
	set := map[string]Share{}
	for v := range plan.slots {
		last, known := u.applied[name][v]
		// What the maps or the group had before us counts as applied.
		if u.adopt[name][v] || !known && u.routes.others(name, plan.record.Word, v) {
			u.applied[name][v] = want[v]
			delete(u.adopt[name], v)
			continue
		}
		if want[v] != last {
			set[v] = want[v]
		}
	}
	if len(set) > 0 {
		if _, err := u.store(name, set); err != nil {
			return fmt.Errorf("set weights: %w", err)
		}
	}
	for v := range plan.slots {
		u.applied[name][v] = want[v]
	}
	return nil
}

// Applied returns the desired weights that were carried out last, by service
// and version: not the live ones, which may have been set since. A daemon that
// keeps them can give them to Remember after a restart.
func (r *Reconciler) Applied() map[string]map[string]Share {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]map[string]Share, len(r.applied))
	for name, shares := range r.applied {
		out[name] = maps.Clone(shares)
	}
	return out
}

// Remember says, after Restore, which desired weights had been carried out
// before the restart, of all services: the next Update sets those that differ,
// and those that are not named are new. Without it, the weights that were
// found in the maps stay until the desired ones differ from what the first
// Update says.
func (r *Reconciler) Remember(applied map[string]map[string]Share) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.adopt)
	for name, t := range r.routes.byName {
		known := map[string]Share{}
		for v := range t.slots {
			if share, ok := applied[name][v]; ok {
				known[v] = share
			}
		}
		r.applied[name] = known
	}
}
