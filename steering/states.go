package steering

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// A BackendName says which backend is meant.
type BackendName struct {
	Service, Version string
	Addr             netip.AddrPort
}

func (n BackendName) String() string { return n.Service + "/" + n.Version + "/" + n.Addr.String() }

// SetStates says how backends fare. It holds for later Updates, too, and of a
// backend that comes only later, until it is said otherwise; one that is desired
// to drain does so. After a restart the maps have the states, but it is the
// caller who must say them again.
//
// Only the tables that this concerns are flipped, so it takes a fraction of an
// Update's time, and it asks nobody for a way. Where an Update was not carried
// out as a whole, it carries out the whole.
func (r *Reconciler) SetStates(states map[BackendName]BackendState) error {
	r.work.Lock()
	defer r.work.Unlock()
	concerned := map[string]bool{}
	for name, s := range states {
		name.Addr = unmap(name.Addr)
		r.states[name] = s
		concerned[name.Service] = true
	}
	last := r.lastGood()
	next := maps.Clone(last)
	var moved []Service
	for name := range concerned {
		old, ok := last[name]
		if !ok {
			continue
		}
		next[name] = r.stated(old)
		if !slices.EqualFunc(old.Versions, next[name].Versions, sameBackends) {
			moved = append(moved, next[name])
		}
	}
	if len(moved) == 0 {
		return nil
	}
	slices.SortFunc(moved, compareServices)
	all := slices.SortedFunc(maps.Values(next), compareServices)
	var err error
	if r.whole {
		err = r.flipStates(moved)
	} else {
		err = r.pass(all).err(nil)
	}
	r.accept(all)
	r.publish()
	return err
}

func compareServices(a, b Service) int { return strings.Compare(a.Name, b.Name) }

func sameBackends(a, b Version) bool { return slices.Equal(a.Backends, b.Backends) }

// flipStates writes the states of the services' backends, and leads their
// frontends to tables by them. Everything else is as the last Update left it,
// which was carried out as a whole.
func (r *Reconciler) flipStates(services []Service) error {
	known := func(a netip.Addr) (Path, error) { return r.found[a].path, r.found[a].err }
	p := newPlanner(r.state, r.ids, known, r.maps.Words.Load)
	p.held = r.held()
	for _, s := range services {
		p.service(s)
	}
	u := &update{Reconciler: r, planner: p, services: services, errs: map[string]error{}}
	u.each(u.writeStates)
	u.each(u.flip)
	return u.err(nil)
}

func (u *update) writeStates(plan *servicePlan) error {
	for _, id := range slices.Sorted(maps.Keys(plan.backends)) {
		b := u.state.backends[id]
		b.State = plan.backends[id].State
		if err := put(u.maps.Backends, u.state.backends, "backend "+backendAddr(b).String(), id, b); err != nil {
			return fmt.Errorf("note a backend's state: %w", err)
		}
	}
	return nil
}

// stated returns the service with the states that SetStates named.
func (r *Reconciler) stated(s Service) Service {
	out := s.clone()
	for _, v := range out.Versions {
		for i, b := range v.Backends {
			state, ok := r.states[BackendName{s.Name, v.Name, unmap(b.Addr)}]
			if ok && b.State != Draining {
				v.Backends[i].State = state
			}
		}
	}
	return out
}

// forgetStates forgets what was said of backends that are in none of the lists.
func (r *Reconciler) forgetStates(lists ...[]Service) {
	if len(r.states) == 0 {
		return
	}
	wanted := map[BackendName]bool{}
	for _, services := range lists {
		for _, s := range services {
			for _, v := range s.Versions {
				for _, b := range v.Backends {
					wanted[BackendName{s.Name, v.Name, unmap(b.Addr)}] = true
				}
			}
		}
	}
	maps.DeleteFunc(r.states, func(n BackendName, _ BackendState) bool { return !wanted[n] })
}
