package steering

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"siskin.dev/siskin/bpf"
)

// Former is the name of a version that was removed, and whose name was given
// up, while connections to its backends go on.
const Former = "former"

// ServiceStatus is one service as it is in the maps.
type ServiceStatus struct {
	Name, Group string
	ID          uint32
	Word        uint32 // index of its weight word
	Epoch       uint8  // of the word, now
	Retired     bool   // deleted: its connections go on, it gets no new ones
	Affinity    Affinity
	SourceNAT   SourceNAT
	Observe     Observe
	Frontends   []FrontendStatus // by id
	Versions    []VersionStatus  // by slot; stable first
}

// FrontendStatus is one frontend of a service.
type FrontendStatus struct {
	Frontend
	ID      uint32
	Flags   uint32 // bpf.Frontend…
	Retired bool
}

// VersionStatus is one version of a service.
type VersionStatus struct {
	Name    string
	Slot    uint8
	Latency uint32 // its index into the latencies map
	Share   Share  // asked for, read from the word now
	Retired bool   // removed: its connections go on
	// Backends by id.
	Backends []BackendStatus
}

// BackendStatus is one backend of a version.
type BackendStatus struct {
	ID      uint32 // its index into the counters map
	Addr    netip.AddrPort
	Weight  uint32
	State   BackendState
	Flags   uint8 // bpf.Backend…
	Retired bool  // removed: its connections go on
}

// Status returns all services in the order of their names, with what is left
// of deleted ones until Prune has removed it. It never waits for an Update:
// while one is going on, it tells what was there before, with live weights.
func (r *Reconciler) Status() []ServiceStatus {
	return r.StatusOf(func(*ServiceStatus) bool { return true })
}

// StatusOf returns of Status what is wanted. wanted must not keep what it is
// asked about, nor look at epochs and shares.
func (r *Reconciler) StatusOf(wanted func(*ServiceStatus) bool) []ServiceStatus {
	snapshot := r.shown()
	var out []ServiceStatus
	for i := range snapshot {
		if wanted(&snapshot[i]) {
			out = append(out, r.live(snapshot[i]))
		}
	}
	return out
}

// Named returns of Status the services of these names that were not deleted. It
// looks at no others, of which there may be thousands.
func (r *Reconciler) Named(names ...string) []ServiceStatus {
	snapshot := r.shown()
	var out []ServiceStatus
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		i, _ := slices.BinarySearchFunc(snapshot, name, func(s ServiceStatus, name string) int { return cmp.Compare(s.Name, name) })
		for ; i < len(snapshot) && snapshot[i].Name == name; i++ {
			if !snapshot[i].Retired {
				out = append(out, r.live(snapshot[i]))
			}
		}
	}
	return out
}

func (r *Reconciler) shown() []ServiceStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.snapshot // replaced as a whole, never changed
}

// live returns a service of the snapshot with what its word says now.
func (r *Reconciler) live(s ServiceStatus) ServiceStatus {
	w := r.maps.Words.Load(s.Word)
	s.Epoch = w.Epoch()
	s.Versions = slices.Clone(s.Versions)
	for j := range s.Versions {
		if v := &s.Versions[j]; !v.Retired && !s.Retired {
			v.Share = w.Share(v.Slot)
		}
	}
	return s
}

// publish makes the state visible to Status.
func (r *Reconciler) publish() {
	snapshot := snapshotOf(r.state)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshot = snapshot
}

// snapshotOf tells a state by names. Shares and epochs are left out.
func snapshotOf(s *state) []ServiceStatus {
	backends := map[uint32]map[uint32][]BackendStatus{} // by service and version id
	slotOf := map[uint32]uint8{}
	for id, b := range s.backends {
		if backends[b.Service] == nil {
			backends[b.Service] = map[uint32][]BackendStatus{}
		}
		backends[b.Service][b.Version] = append(backends[b.Service][b.Version], BackendStatus{
			ID: id, Addr: backendAddr(b), Weight: b.Weight, State: BackendState(b.State),
			Flags: b.Flags, Retired: retiredBackend(b),
		})
		slotOf[b.Version] = b.Slot
	}
	frontends := map[uint32][]FrontendStatus{}
	for key, f := range s.frontends {
		frontends[f.Service] = append(frontends[f.Service], FrontendStatus{
			Frontend: frontendOf(key), ID: f.Id, Flags: f.Flags, Retired: retiredFrontend(f),
		})
	}
	var out []ServiceStatus
	for id, rec := range s.services {
		fs := frontends[id]
		slices.SortFunc(fs, func(a, b FrontendStatus) int { return cmp.Compare(a.ID, b.ID) })
		st := ServiceStatus{
			Name: bpf.Text(rec.Name[:]), Group: bpf.Text(rec.Group[:]), ID: id, Word: rec.Word,
			Frontends: fs,
			Retired:   !slices.ContainsFunc(fs, func(f FrontendStatus) bool { return !f.Retired }),
			Versions:  versionsOf(rec, backends[id], slotOf),
		}
		if len(fs) > 0 {
			st.Affinity, st.SourceNAT = readFlags(fs)
		}
		st.Observe = readObserve(fs)
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b ServiceStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// readFlags tells what a service asked for by its frontends' flags: those of
// one that is not retired, if there is one.
func readFlags(fs []FrontendStatus) (Affinity, SourceNAT) {
	flags := fs[0].Flags
	if i := slices.IndexFunc(fs, func(f FrontendStatus) bool { return !f.Retired }); i >= 0 {
		flags = fs[i].Flags
	}
	affinity, nat := ByClient, Auto
	if flags&bpf.FrontendByConnection != 0 {
		affinity = ByConnection
	}
	switch {
	case flags&bpf.FrontendSNATAlways != 0:
		nat = Always
	case flags&bpf.FrontendSNATNever != 0:
		nat = Never
	}
	return affinity, nat
}

// readObserve tells what is read in a service's connections by the flags of a
// TCP frontend; UDP's say nothing about it.
func readObserve(fs []FrontendStatus) Observe {
	var read []FrontendStatus
	for _, f := range fs {
		if f.Proto == TCP && !f.Retired {
			read = append(read, f)
		}
	}
	switch {
	case len(read) == 0:
		return AutoObserve
	case read[0].Flags&bpf.FrontendRead == 0:
		return Connections
	case read[0].Flags&bpf.FrontendRequests != 0:
		return Requests
	}
	return AutoObserve
}

func versionsOf(rec bpf.ServiceName, backends map[uint32][]BackendStatus, slotOf map[uint32]uint8) []VersionStatus {
	names := map[uint32]string{}
	for slot := range rec.Versions {
		if name := bpf.Text(rec.Versions[slot][:]); name != "" {
			names[rec.Latency[slot]] = name
		}
	}
	var out []VersionStatus
	for _, version := range slices.Sorted(maps.Keys(backends)) {
		bs := backends[version]
		slices.SortFunc(bs, func(a, b BackendStatus) int { return cmp.Compare(a.ID, b.ID) })
		name, ok := names[version]
		if !ok {
			name = Former
		}
		out = append(out, VersionStatus{
			Name: name, Slot: slotOf[version], Latency: version, Backends: bs,
			Retired: !slices.ContainsFunc(bs, func(b BackendStatus) bool { return !b.Retired }),
		})
	}
	slices.SortFunc(out, func(a, b VersionStatus) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Latency, b.Latency))
	})
	return out
}
