package steering

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"siskin.dev/siskin/bpf"
)

// A Reconciler makes the kernel's maps follow the desired state. All its
// methods may be called at the same time: Update, Prune and Restore wait for
// each other, and the rest never waits for a map.
type Reconciler struct {
	maps  Maps
	paths Paths
	log   *slog.Logger

	// work is held through Update, Prune and Restore, and guards:
	work  sync.Mutex
	state *state
	ids   *ids
	// ungraced: since the last grace period a frontend was changed, so a
	// program run may still use what it said before.
	ungraced bool
	lost     map[netip.Addr]error // backends without a route, as last seen
	found    map[netip.Addr]way   // the ways that the last Update found
	whole    bool                 // it was carried out, all of it
	states   map[BackendName]BackendState

	// mu is held for microseconds, never during a map write other than the
	// store of a word. It guards:
	mu       sync.Mutex
	last     map[string]Service          // what was accepted last
	routes   *routes                     // where a service's weights are
	wanted   map[string]map[string]Share // the weights that are desired, carried out or not
	applied  map[string]map[string]Share // those of them that were carried out, or overruled by hand
	adopt    map[string]map[string]bool  // versions found in the maps whose desired weights are not known yet
	snapshot []ServiceStatus
	holds    map[uint32]*hold // the releases, by the word that each has
}

// New returns a Reconciler that takes the maps to be empty. Where they may
// not be, call Restore first.
func New(m Maps, paths Paths, log *slog.Logger) *Reconciler {
	r := &Reconciler{maps: m, paths: paths, log: log}
	r.reset(newState())
	return r
}

func (r *Reconciler) reset(s *state) {
	r.state, r.ids, r.ungraced = s, newIDs(r.maps.Limits, s), false
	r.found, r.whole, r.states = nil, false, map[BackendName]BackendState{}
	r.last, r.routes = map[string]Service{}, newRoutes()
	r.wanted = map[string]map[string]Share{}
	r.applied, r.adopt = map[string]map[string]Share{}, map[string]map[string]bool{}
	r.snapshot = nil
	r.holds = map[uint32]*hold{}
}

// Update makes the maps follow the whole desired state. It is idempotent, and
// what failed is done by the next call. A service with a fault keeps its last
// good state, and one service's failure stops no other; all errors are joined,
// and name their service. Service faults are *FieldErrors.
//
// The order keeps every packet's way whole: what is referred to is written
// before what refers to it, a frontend changes with one write, and nothing is
// given up before no program can be using it any more.
func (r *Reconciler) Update(desired []Service) error {
	r.work.Lock()
	defer r.work.Unlock()
	services, faults := settle(r.lastGood(), desired)
	for i := range services {
		services[i] = r.stated(services[i])
	}
	r.want(services)
	u := r.pass(services)
	if u.waiting() {
		// The first pass took their slots from the versions that go away.
		u = r.pass(services)
	}
	r.accept(services)
	r.forgetStates(desired, services)
	r.publish()
	err := u.err(faults)
	r.whole = err == nil
	return err
}

// pass plans the services and carries the plans out.
func (r *Reconciler) pass(services []Service) *update {
	p := newPlanner(r.state, r.ids, r.pathFinder(), r.maps.Words.Load)
	p.held = r.held()
	for _, s := range services {
		p.service(s)
	}
	r.sayLost(p.lost)
	u := &update{Reconciler: r, planner: p, services: services, errs: map[string]error{}}
	endpoints, others := p.endpoints()
	u.each(u.writeRecord)
	u.writeWays(endpoints, others)
	u.each(u.flip)
	u.retireFrontends()
	u.each(u.applyWeights)
	if err := r.grace(); err != nil {
		u.fail("", err)
	} else {
		u.retireBackends()
	}
	if err := r.writeEchoes(); err != nil {
		u.fail("", err)
	}
	return u
}

func (r *Reconciler) lastGood() map[string]Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last // replaced as a whole, never changed
}

// accept remembers what is desired now.
func (r *Reconciler) accept(services []Service) {
	last := make(map[string]Service, len(services))
	for _, s := range services {
		last[s.Name] = s.clone()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = last
}

// pathFinder returns a lookup that asks once for each address.
func (r *Reconciler) pathFinder() func(netip.Addr) (Path, error) {
	seen := map[netip.Addr]way{}
	r.found = seen
	return func(a netip.Addr) (Path, error) {
		got, ok := seen[a]
		if !ok {
			got.path, got.err = r.paths.Path(a)
			seen[a] = got
		}
		return got.path, got.err
	}
}

// A way is what Paths said about an address.
type way struct {
	path Path
	err  error
}

// sayLost logs the backends that lost their route since the last Update.
func (r *Reconciler) sayLost(lost map[netip.Addr]error) {
	for addr, err := range lost {
		if r.lost[addr] == nil {
			r.log.Warn("no route to a backend; the last known way stays", "address", addr, "error", err)
		}
	}
	r.lost = lost
}

// grace waits until no program uses what the maps said before, if they said
// anything else, and forgets the runs that nothing refers to.
func (r *Reconciler) grace() error {
	if r.ungraced {
		if err := r.maps.Grace(); err != nil {
			return fmt.Errorf("wait for running programs: %w", err)
		}
		r.ungraced = false
	}
	used := r.state.referenced()
	maps.DeleteFunc(r.state.runs, func(t bpf.Table, _ []uint32) bool { return !used[t] })
	return nil
}

// An update carries out the plans of one Update.
type update struct {
	*Reconciler
	*planner
	services []Service
	errs     map[string]error // by service; "" for what concerns none
	busy     []bpf.Table      // the runs of state in their order; nil: not sorted yet
}

func (u *update) fail(service string, err error) {
	u.errs[service] = errors.Join(u.errs[service], err)
}

// waiting reports whether a version was left out because no slot was free.
func (u *update) waiting() bool {
	for _, plan := range u.plans {
		if plan.waiting != nil {
			return true
		}
	}
	return false
}

// err joins what failed and the faults that were there before, by service.
func (u *update) err(faults map[string]error) error {
	for name, fault := range faults {
		u.fail(name, fault)
	}
	for name, plan := range u.plans {
		if err := errors.Join(plan.err, plan.waiting); err != nil {
			u.fail(name, fmt.Errorf("service %s: %w", name, err))
		}
	}
	all := make([]error, 0, len(u.errs))
	for _, name := range slices.Sorted(maps.Keys(u.errs)) {
		all = append(all, u.errs[name])
	}
	return errors.Join(all...)
}

// each runs a step for every service with which nothing is wrong so far.
func (u *update) each(step func(*servicePlan) error) {
	for _, s := range u.services {
		if plan := u.plans[s.Name]; plan.err == nil {
			plan.err = step(plan)
		}
	}
}

// writeRecord makes the ids ready that the service will use, and writes down
// what they stand for.
func (u *update) writeRecord(plan *servicePlan) error {
	for _, id := range plan.freshIDs {
		if u.maps.Reset != nil {
			if err := u.maps.Reset(id); err != nil {
				return fmt.Errorf("zero the counters of backend %d: %w", id, err)
			}
		}
	}
	for _, id := range plan.freshVers {
		if u.maps.ResetLatency != nil {
			if err := u.maps.ResetLatency(id); err != nil {
				return fmt.Errorf("zero the histograms of version %d: %w", id, err)
			}
		}
	}
	if plan.newWord != nil {
		u.maps.Words.Store(plan.record.Word, *plan.newWord)
	}
	return put(u.maps.Services, u.state.services, "the service's names", plan.id, plan.record)
}

// writeWays writes backends and endpoints. An endpoint that becomes shared is
// announced to its backends first, so that every flow made from then on has an
// alias; services that lead to where a write failed go no further.
func (u *update) writeWays(endpoints map[bpf.Tuple]*endpointPlan, others map[uint32]bpf.Backend) {
	faults := map[netip.AddrPort]error{}
	write := func(backends map[uint32]bpf.Backend) {
		for _, id := range slices.Sorted(maps.Keys(backends)) {
			b := backends[id]
			addr := backendAddr(b)
			if err := put(u.maps.Backends, u.state.backends, "backend "+addr.String(), id, b); err != nil {
				faults[addr] = errors.Join(faults[addr], err)
			}
		}
	}
	write(others)
	u.each(func(plan *servicePlan) error { write(plan.backends); return nil })
	for _, plan := range u.byID {
		if plan.err == nil {
			continue
		}
		for id, b := range plan.backends {
			if addr := backendAddr(b); u.state.backends[id] != b {
				faults[addr] = errors.Join(faults[addr], fmt.Errorf("service %s, which leads to %s too, failed: %w", plan.desired.Name, addr, plan.err))
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(endpoints), compareTuples) {
		ep := endpoints[key]
		err := faults[key.AddrPort()]
		if err == nil {
			// First, since an endpoint behind a closed gate is one that no
			// later plan may have a reason to mend.
			err = u.openGate(bpf.GateEndpoints, key)
		}
		if err == nil {
			err = put(u.maps.Endpoints, u.state.endpoints, "endpoint "+frontendOf(key).String(), key, ep.entry)
		}
		if err == nil {
			continue
		}
		if len(ep.services) == 0 {
			u.fail("", err)
		}
		for name := range ep.services {
			if u.plans[name].err == nil {
				u.plans[name].err = err
			}
		}
	}
}

// retireFrontends lets the frontends that nobody wants take no new
// connections. Those that a service wants to take over wait for it.
func (u *update) retireFrontends() {
	wanted := map[bpf.Tuple]bool{}
	for _, s := range u.services {
		for _, f := range s.Frontends {
			wanted[f.tuple()] = true
		}
	}
	for _, rec := range u.state.services {
		if name := bpf.Text(rec.Name[:]); u.plans[name] == nil {
			u.closeService(name)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(u.state.frontends), compareTuples) {
		f := u.state.frontends[key]
		if wanted[key] || retiredFrontend(f) || u.unplanned(f.Service) {
			continue
		}
		f.Flags |= bpf.FrontendRetired
		u.ungraced = true
		if err := put(u.maps.Frontends, u.state.frontends, "frontend "+frontendOf(key).String(), key, f); err != nil {
			u.fail("", err)
		}
	}
}

// unplanned reports whether a service is desired but could not be planned: it
// stays as it is.
func (u *update) unplanned(id uint32) bool {
	rec, ok := u.state.services[id]
	if !ok {
		return false
	}
	plan := u.plans[bpf.Text(rec.Name[:])]
	return plan != nil && u.byID[id] == nil
}

// retireBackends marks the backends that nobody wants and no frontend that
// takes connections leads to. A grace period has passed since one did.
func (u *update) retireBackends() {
	selectable := u.state.selectable(true)
	for _, id := range slices.Sorted(maps.Keys(u.state.backends)) {
		b := u.state.backends[id]
		if plan := u.byID[b.Service]; plan != nil && (plan.err != nil || plan.backends[id] != (bpf.Backend{})) {
			continue
		}
		if retiredBackend(b) || selectable[id] || u.unplanned(b.Service) {
			continue
		}
		b.Flags |= bpf.BackendRetired
		if err := put(u.maps.Backends, u.state.backends, "backend "+backendAddr(b).String(), id, b); err != nil {
			u.fail("", err)
		}
	}
}
