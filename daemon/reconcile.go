package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/steering"
)

// intent returns what shall be.
func (d *daemon) intent() intent {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.intended
}

// adopt makes next what shall be: on disk first, so that a crash at any moment
// leaves an intention that the next start carries out. writing is held.
func (d *daemon) adopt(next intent) error {
	if err := d.write(next); err != nil {
		return err
	}
	d.mu.Lock()
	d.intended = next
	d.mu.Unlock()
	return nil
}

// write writes the state file. writing is held.
func (d *daemon) write(next intent) error {
	d.mu.Lock()
	bases := d.baselines
	d.mu.Unlock()
	d.unsaved.Store(false)
	applied := d.rec.Applied()
	state := saved{
		Services: next.services.sorted(), Documents: next.differing(), Releases: next.sortedReleases(), Promoted: next.promoted,
		Applied: applied, Live: d.live(), Baselines: bases,
	}
	if err := writeState(d.opts.statePath(), state); err != nil {
		d.unsaved.Store(true)
		return err
	}
	d.applied = applied
	return nil
}

// save writes the state file when it lacks something. writing is held.
func (d *daemon) save() {
	same := func(a, b map[string]steering.Share) bool { return maps.Equal(a, b) }
	if !d.unsaved.Load() && maps.EqualFunc(d.applied, d.rec.Applied(), same) {
		return
	}
	if err := d.write(d.intent()); err != nil {
		d.saveFailed(err)
		return
	}
	d.forgetOnce("save")
}

// saveFailed tells that the state file cannot be written, once for each cause:
// the error itself names a new file each time.
func (d *daemon) saveFailed(err error) {
	cause := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		cause = e.Err
	} else if e, ok := errors.AsType[*os.LinkError](err); ok {
		cause = e.Err
	}
	d.once("save", cause, func() {
		d.events.warn("daemon", "SaveFailed", err.Error()+"; steering goes on, and it is tried again each second")
	})
}

// reconcile makes the maps follow the documents. What fails is tried again by
// the loop, and told of by /readyz, an event and the service's problems.
// writing is held.
func (d *daemon) reconcile() error {
	d.hooksMoved.Store(false)
	shall := d.intent()
	before := d.liveWords()
	targets := d.expectHealth(shall.services)
	err := d.rec.Update(shall.desired())
	d.checker.Follow(targets)
	d.rebase(before)
	d.save()
	d.reconciled.Store(err == nil)
	d.retry.Store(err != nil)
	if err != nil {
		d.counters.ReconcileErrors.Inc()
		d.once("reconcile", err, func() { d.events.warn("daemon", "ReconcileFailed", err.Error()) })
	} else {
		d.forgetOnce("reconcile")
	}
	problems := d.findProblems(shall.desired())
	for name := range shall.services {
		problems[name] = append(problems[name], faultsOf(name, err)...)
	}
	d.mu.Lock()
	d.problems = problems
	d.mu.Unlock()
	return err
}

// findProblems asks the doctor about the services.
func (d *daemon) findProblems(services []steering.Service) map[string][]string {
	out := make(map[string][]string)
	for _, s := range services {
		for _, c := range d.network.Examine(s) {
			out[s.Name] = append(out[s.Name], problemText(c))
		}
	}
	return out
}

// faultsOf picks the errors of one service out of those of a reconcile, which
// begin with its name.
func faultsOf(name string, err error) []string {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		var out []string
		for _, e := range all.Unwrap() {
			out = append(out, faultsOf(name, e)...)
		}
		return out
	}
	if err != nil && strings.HasPrefix(err.Error(), "service "+name+": ") {
		return []string{err.Error()}
	}
	return nil
}

func problemText(c host.Check) string {
	text := c.Name + ": " + c.Detail
	if c.Remedy != "" {
		text += ": " + c.Remedy
	}
	return text
}

// liveWords returns the live weight words by service.
func (d *daemon) liveWords() map[string]steering.Word {
	out := make(map[string]steering.Word)
	for _, s := range d.rec.Status() {
		if !s.Retired {
			out[s.Name] = d.words.Load(s.Word)
		}
	}
	return out
}

// rebase begins to count the achieved shares anew for the services whose
// weights changed.
func (d *daemon) rebase(before map[string]steering.Word) {
	changed := d.rec.StatusOf(func(s *steering.ServiceStatus) bool {
		old, ok := before[s.Name]
		return !s.Retired && ok && old != d.words.Load(s.Word)
	})
	if len(changed) == 0 {
		return
	}
	d.setBaselines(changed)
	for _, s := range changed {
		d.events.normal("service/"+s.Name, "WeightsChanged", "the document's weights: "+sharesText(liveShares(s)))
	}
}

func liveShares(s steering.ServiceStatus) map[string]steering.Share {
	out := make(map[string]steering.Share)
	for _, v := range s.Versions {
		if !v.Retired {
			out[v.Name] = v.Share
		}
	}
	return out
}

func sharesText(shares map[string]steering.Share) string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		text += fmt.Sprintf(" %s=%s", name, shares[name])
	}
	return text[min(1, len(text)):]
}

// apply is Control.Apply.
func (d *daemon) apply(docs []api.Document, dryRun bool) (api.ApplyResult, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	now := d.intent()
	out := api.ApplyResult{DryRun: dryRun}
	next, merges, err := now.with(docs)
	if err != nil {
		return out, err
	}
	if err := next.validate(); err != nil {
		return out, err
	}
	changed := false
	for _, doc := range docs {
		r, err := d.compare(now, doc, merges)
		if err != nil {
			return out, err
		}
		changed = changed || r.Outcome != api.OutcomeUnchanged
		out.Objects = append(out.Objects, r)
	}
	if dryRun {
		return out, nil
	}
	// What is the same as live may still be another document than before.
	if changed || !maps.Equal(now.applied, next.applied) {
		if err := d.adopt(next); err != nil {
			return out, fmt.Errorf("nothing was applied: %w", err)
		}
	}
	var services []*api.Service
	for i, r := range out.Objects {
		if r.Outcome != api.OutcomeUnchanged {
			d.events.normal(strings.ToLower(r.Kind)+"/"+r.Name, "Applied", r.Outcome)
		}
		if docs[i].Service != nil {
			services = append(services, docs[i].Service)
		}
	}
	err = d.enforce(services...)
	d.conductAll()
	return out, err
}

// compare says what applying a document does to the object of its name.
func (d *daemon) compare(now intent, doc api.Document, merges map[string]api.Merged) (api.ObjectResult, error) {
	out := api.ObjectResult{Kind: doc.Kind(), Name: doc.Name(), Warnings: doc.Warnings()}
	known := false
	if doc.Release != nil {
		old := now.releases[doc.Name()]
		known = old != nil
		var before any
		if known {
			before = old.Spec
		}
		var err error
		if out.Diff, err = api.Diff(before, doc.Release.Spec); err != nil {
			return out, err
		}
	} else {
		m := merges[doc.Name()]
		known = now.services[doc.Name()] != nil
		out.Diff = m.Diff
		out.Warnings = append(out.Warnings, m.Warnings...)
		for _, c := range d.network.Examine(doc.Service.Steering()) {
			out.Warnings = append(out.Warnings, problemText(c))
		}
		out.Warnings = append(out.Warnings, d.weightWarnings(now.services[doc.Name()], m.Service)...)
	}
	out.Outcome = outcome(known, out.Diff)
	return out, nil
}

// outcome says in a word what an apply does.
func outcome(known bool, diff []string) string {
	switch {
	case !known:
		return api.OutcomeCreated
	case len(diff) > 0:
		return api.OutcomeChanged
	}
	return api.OutcomeUnchanged
}

// enforce brings hooks and maps up to date with the documents, of which some
// may be new. writing is held.
func (d *daemon) enforce(fresh ...*api.Service) error {
	// What fails here fails again below.
	_ = d.attach(d.ways(fresh...)...)
	err := d.reconcile()
	if e := d.attach(); e != nil {
		d.retry.Store(true)
		err = errors.Join(err, e)
	}
	err = errors.Join(err, d.followHooks())
	if err != nil {
		return fmt.Errorf("accepted, but not all of it is in force yet; it is tried again: %w", err)
	}
	return nil
}

// weightWarnings says where a document's weights do not change the live ones:
// what was set by hand stays until the document itself changes.
func (d *daemon) weightWarnings(old, now *api.Service) []string {
	if old == nil {
		return nil
	}
	live := make(map[string]steering.Share)
	for _, s := range d.rec.Named(now.Metadata.Name) {
		live = liveShares(s)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(now.Spec.Versions)) {
		want, was := now.Spec.Weights[name], old.Spec.Weights[name]
		is, known := live[name]
		if name != steering.Stable && known && want == was && steering.Share(want) != is {
			out = append(out, fmt.Sprintf("spec.weights.%s stays %s, which was set by hand, since the document's %s is what was applied before; "+
				"to set it: siskin weight %s %s=%s", name, is, want, now.Metadata.Name, name, want))
		}
	}
	return out
}

// remove is Control.Delete.
func (d *daemon) remove(kind, name string) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	now := d.intent()
	switch {
	case kind == api.KindService && now.services[name] != nil:
		if wants := now.wants(name); len(wants) > 0 {
			return fmt.Errorf("service %s: %w: release %s changes it: delete that first, with siskin delete release %s", name, api.ErrConflict, wants[0], wants[0])
		}
	case kind == api.KindRelease && now.releases[name] != nil:
	default:
		return fmt.Errorf("%s %s: %w", kind, name, api.ErrNotFound)
	}
	if err := d.adopt(now.without(kind, name)); err != nil {
		return fmt.Errorf("nothing was deleted: %w", err)
	}
	d.events.normal(strings.ToLower(kind)+"/"+name, "Deleted", deletedText(kind))
	if kind == api.KindRelease {
		d.conductor.Delete(name) // what it has moved goes back first
		return nil
	}
	d.dropBaseline(name)
	return d.enforce()
}

func deletedText(kind string) string {
	if kind == api.KindRelease {
		return "what it has moved goes back to stable"
	}
	return "it takes no new connections; open ones go on"
}
