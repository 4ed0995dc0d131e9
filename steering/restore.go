package steering

import (
	"fmt"
	"maps"
	"slices"

	"siskin.dev/siskin/bpf"
)

// Restore takes over what is in the maps: ids, slots, tables, weights and
// names. It writes nothing, and needs nothing but the maps, so a daemon goes
// on where another was killed in the middle of an Update. What that one left
// half done is done by the next Update, and removed by Prune.
func (r *Reconciler) Restore() error {
	r.work.Lock()
	defer r.work.Unlock()
	s, err := readState(r.maps)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	// The one before us may have died between a flip and its grace period.
	if err := r.maps.Grace(); err != nil {
		return fmt.Errorf("restore: wait for running programs: %w", err)
	}
	r.mu.Lock()
	r.reset(s)
	r.mu.Unlock()
	r.publish()
	services := desiredOf(r.Status())
	r.accept(services)
	r.mu.Lock()
	defer r.mu.Unlock()
	live, reached := s.liveVersions(), map[uint32]bool{}
	for id := range s.selectable(true) {
		reached[s.backends[id].Version] = true
	}
	for _, rec := range s.services {
		name := bpf.Text(rec.Name[:])
		if _, ok := r.last[name]; !ok {
			continue
		}
		t := routeOf(rec, live)
		r.routes.set(name, t)
		r.adopt[name] = map[string]bool{}
		for v, slot := range t.slots {
			// A version to which no table leads was being added, and its
			// weight was not set yet.
			if reached[rec.Latency[slot]] || r.maps.Words.Load(t.word).Share(slot) > 0 {
				r.adopt[name][v] = true
			}
		}
	}
	return nil
}

// Desired returns the services that Update accepted last, or that Restore
// found, in the order of their names. The weights are those desired, not the
// live ones, which Status tells; only after Restore are they the same.
func (r *Reconciler) Desired() []Service {
	last := r.lastGood()
	out := make([]Service, 0, len(last))
	for _, name := range slices.Sorted(maps.Keys(last)) {
		out = append(out, last[name].clone())
	}
	return out
}

// desiredOf reads back what must have been desired.
func desiredOf(status []ServiceStatus) []Service {
	var out []Service
	for _, st := range status {
		if st.Retired {
			continue
		}
		s := Service{
			Name: st.Name, Group: st.Group, Affinity: st.Affinity, SourceNAT: st.SourceNAT, Observe: st.Observe,
			Weights: map[string]Share{},
		}
		for _, f := range st.Frontends {
			if !f.Retired {
				s.Frontends = append(s.Frontends, f.Frontend)
			}
		}
		for _, v := range st.Versions {
			if v.Retired {
				continue
			}
			version := Version{Name: v.Name}
			for _, b := range v.Backends {
				if !b.Retired {
					version.Backends = append(version.Backends, Backend{Addr: b.Addr, Weight: b.Weight, State: b.State})
				}
			}
			s.Versions = append(s.Versions, version)
			if v.Name != Stable && v.Share > 0 {
				s.Weights[v.Name] = v.Share
			}
		}
		out = append(out, s)
	}
	return out
}

// clone returns a copy that shares nothing with s.
func (s Service) clone() Service {
	s.Frontends = slices.Clone(s.Frontends)
	s.Versions = slices.Clone(s.Versions)
	for i := range s.Versions {
		s.Versions[i].Backends = slices.Clone(s.Versions[i].Backends)
	}
	s.Weights = maps.Clone(s.Weights)
	return s
}
