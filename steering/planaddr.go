package steering

import (
	"net/netip"
	"slices"

	"siskin.dev/siskin/bpf"
)

// planBackends gives each backend its id and entry, and lists the members of
// each table. Endpoints and the shared flag follow when all services are
// planned.
func (p *planner) planBackends(plan *servicePlan) error {
	for _, v := range plan.desired.Versions {
		slot, ok := plan.slots[v.Name]
		if !ok && v.Name != Stable {
			continue // it waits for a slot
		}
		version := plan.record.Latency[slot]
		byFamily := map[Family][]Backend{}
		for _, b := range v.Backends {
			b.Addr = unmap(b.Addr)
			id, err := p.backendID(plan, backendKey{version, b.Addr})
			if err != nil {
				return err
			}
			entry := p.routed(b.Addr.Addr(), p.actual.backends[id])
			entry.Addr, entry.Port = bpf.AddrFrom(b.Addr.Addr()), bpf.Port(b.Addr.Port())
			entry.Slot, entry.Service, entry.Version = slot, plan.id, version
			entry.Flags &^= bpf.BackendRetired
			entry.Weight, entry.State = b.Weight, uint32(b.State)
			plan.backends[id] = entry
			family := FamilyOf(b.Addr.Addr())
			byFamily[family] = append(byFamily[family], b)
		}
		for family, backends := range byFamily {
			takes := eligible(v.Name, backends)
			if !slices.ContainsFunc(backends, takes) {
				continue
			}
			key := tableKey{slot, family}
			for _, b := range backends {
				plan.members[key] = append(plan.members[key], Member{
					ID: p.byAddr[backendKey{version, b.Addr}], Addr: b.Addr, Weight: b.Weight, Rests: !takes(b),
				})
			}
		}
	}
	return nil
}

// eligible tells which backends new connections may be given to. Where none of
// stable's is active, those that do not answer count again: a health check may
// be wrong, and there is nowhere else to go. Another version is then empty, and
// its share goes to stable.
func eligible(version string, backends []Backend) func(Backend) bool {
	active := func(b Backend) bool { return b.Weight > 0 && b.State == Active }
	if version != Stable || slices.ContainsFunc(backends, active) {
		return active
	}
	return func(b Backend) bool { return b.Weight > 0 && (b.State == Down || b.State == Starting) }
}

func (p *planner) backendID(plan *servicePlan, key backendKey) (uint32, error) {
	if id, ok := p.byAddr[key]; ok {
		return id, nil
	}
	id, err := p.ids.backends.take(func(id uint32) bool { return p.used.backends[id] })
	if err != nil {
		return 0, err
	}
	p.byAddr[key], p.used.backends[id] = id, true
	plan.freshIDs = append(plan.freshIDs, id)
	return id, nil
}

// routed returns the entry with the way to addr filled in. Where there is no
// route now, the last known way stays, without what passes by the stack: that
// one would tell the client.
func (p *planner) routed(addr netip.Addr, entry bpf.Backend) bpf.Backend {
	path, err := p.path(addr)
	if err != nil {
		p.lost[addr] = err
		entry.Flags &^= bpf.BackendRedirect | bpf.BackendPeer | bpf.BackendXDP
		return entry
	}
	for flag, set := range map[uint8]bool{
		bpf.BackendHost: path.Host, bpf.BackendRemote: path.Remote,
		bpf.BackendRedirect: path.Redirect, bpf.BackendPeer: path.Peer, bpf.BackendXDP: path.XDP,
	} {
		entry.Flags &^= flag
		if set {
			entry.Flags |= flag
		}
	}
	entry.Ifindex, entry.Source = path.Ifindex, bpf.Addr{}
	if path.Source.IsValid() {
		entry.Source = bpf.AddrFrom(path.Source)
	}
	return entry
}

// planFrontends gives each frontend its id and entry. The id belongs to the
// address: whoever takes over a frontend takes over its connections.
func (p *planner) planFrontends(plan *servicePlan) error {
	s := plan.desired
	for _, f := range s.Frontends {
		f = f.unmapped()
		key := f.tuple()
		old, known := p.actual.frontends[key]
		entry := bpf.Frontend{
			Id: old.Id, Service: plan.id, Word: plan.record.Word, Tables: old.Tables,
			Salt: saltOf(s.Group, s.Name),
		}
		if !known {
			id, err := p.ids.frontends.take(func(id uint32) bool { return p.used.frontends[id] })
			if err != nil {
				return err
			}
			p.used.frontends[id] = true
			entry.Id = id
		}
		if salt, ok := p.held[plan.record.Word]; ok {
			entry.Salt = salt
		}
		if known && old.Service == plan.id && !p.word(old.Word).IsZero() {
			// Another salt means other clients, so it waits until nobody is
			// on a version beside stable.
			entry.Salt = old.Salt
		}
		entry.Flags = frontendFlags(s, f.Proto)
		// A virtual address needs no route.
		path, err := p.path(f.Addr.Addr())
		switch {
		case ownBackend(s, f.Addr), err == nil && path.Host:
			entry.Flags |= bpf.FrontendReal
		case err != nil:
			entry.Flags |= old.Flags & bpf.FrontendReal
		}
		plan.frontends[key] = entry
	}
	return nil
}

func frontendFlags(s Service, proto Proto) (flags uint32) {
	if s.Affinity == ByConnection {
		flags |= bpf.FrontendByConnection
	}
	switch s.SourceNAT {
	case Always:
		flags |= bpf.FrontendSNATAlways
	case Never:
		flags |= bpf.FrontendSNATNever
	}
	if proto != TCP {
		return flags
	}
	switch s.Observe {
	case AutoObserve:
		flags |= bpf.FrontendRead
	case Requests:
		flags |= bpf.FrontendRead | bpf.FrontendRequests
	}
	return flags
}

func ownBackend(s Service, addr netip.AddrPort) bool {
	return slices.ContainsFunc(s.Versions, func(v Version) bool {
		return slices.ContainsFunc(v.Backends, func(b Backend) bool { return unmap(b.Addr) == addr })
	})
}
