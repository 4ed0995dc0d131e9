package steering

import (
	"cmp"
	"net/netip"
	"slices"

	"siskin.dev/siskin/bpf"
)

// planBackends gives each backend its id and entry, and lists the members of
// each table. Endpoints and the shared flag follow when all services are
// planned.
func (p *planner) planBackends(plan *servicePlan) error {
	for _, v := range plan.desired.Versions {
		slot := plan.slots[v.Name] // 0, stable, where there is none
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
			entry.Pad[padWeight], entry.Pad[padState] = b.Weight, uint32(b.State)
			plan.backends[id] = entry
			family := FamilyOf(b.Addr.Addr())
			byFamily[family] = append(byFamily[family], b)
		}
		for family, backends := range byFamily {
			for _, b := range eligible(v.Name, backends) {
				key := tableKey{slot, family}
				plan.members[key] = append(plan.members[key], Member{
					ID: p.byAddr[backendKey{version, b.Addr}], Addr: b.Addr, Weight: b.Weight,
				})
			}
		}
	}
	return nil
}

// eligible returns the backends that new connections may be given to. Where
// none of stable's is active, those that are down count again: a health check
// may be wrong, and there is nowhere else to go. Another version is then
// empty, and its share goes to stable.
func eligible(version string, backends []Backend) []Backend {
	pick := func(states ...BackendState) (out []Backend) {
		for _, b := range backends {
			if b.Weight > 0 && slices.Contains(states, b.State) {
				out = append(out, b)
			}
		}
		return out
	}
	active := pick(Active)
	if len(active) == 0 && version == Stable {
		return pick(Down)
	}
	return active
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
// route now, the last known way stays.
func (p *planner) routed(addr netip.Addr, entry bpf.Backend) bpf.Backend {
	path, ok := p.path(addr)
	if !ok {
		return entry
	}
	entry.Flags &^= bpf.BackendHost | bpf.BackendRemote
	if path.Host {
		entry.Flags |= bpf.BackendHost
	}
	if path.Remote {
		entry.Flags |= bpf.BackendRemote
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
		if known && old.Service == plan.id && !p.word(old.Word).IsZero() {
			// Another salt means other clients, so it waits until nobody is
			// on a version beside stable.
			entry.Salt = old.Salt
		}
		entry.Flags = frontendFlags(s)
		path, ok := p.path(f.Addr.Addr())
		switch {
		case ownBackend(s, f.Addr), ok && path.Host:
			entry.Flags |= bpf.FrontendReal
		case !ok:
			entry.Flags |= old.Flags & bpf.FrontendReal
		}
		plan.frontends[key] = entry
	}
	return nil
}

func frontendFlags(s Service) (flags uint32) {
	if s.Affinity == ByConnection {
		flags |= bpf.FrontendByConnection
	}
	switch s.SourceNAT {
	case Always:
		flags |= bpf.FrontendSNATAlways
	case Never:
		flags |= bpf.FrontendSNATNever
	}
	return flags
}

func ownBackend(s Service, addr netip.AddrPort) bool {
	return slices.ContainsFunc(s.Versions, func(v Version) bool {
		return slices.ContainsFunc(v.Backends, func(b Backend) bool { return unmap(b.Addr) == addr })
	})
}

// endpointPlan is what all services together make of one endpoint.
type endpointPlan struct {
	entry    bpf.Endpoint
	services map[string]bool // those that lead there
}

// endpoints works out the endpoints of all services, planned and actual, and
// completes the backends of the plans with them. The second result is the
// backends of others that change.
//
// Once several frontends have led to an endpoint, it stays shared for as long
// as it exists: flows that were made meanwhile are found by their aliases.
func (p *planner) endpoints() (map[bpf.Tuple]*endpointPlan, map[uint32]bpf.Backend) {
	backends, owners := p.allBackends()
	leads := p.leads(backends)
	idOf := p.endpointIDs(backends)
	out := map[bpf.Tuple]*endpointPlan{}
	shared := map[netip.AddrPort]bool{}
	for key, ids := range leads {
		old, known := p.actual.endpoints[key]
		if _, alive := p.actual.vips[old.Frontend]; known && alive {
			ids[old.Frontend] = true
		}
		entry := bpf.Endpoint{Id: idOf[key.AddrPort()], Source: old.Source}
		if len(ids) == 1 && (!known || old.Frontend != 0) {
			for id := range ids {
				entry.Frontend = id
			}
		} else {
			shared[key.AddrPort()] = true
		}
		if path, ok := p.path(key.Addr.Netip()); ok && path.Source.IsValid() {
			entry.Source = bpf.AddrFrom(path.Source)
		}
		out[key] = &endpointPlan{entry: entry, services: owners[key.AddrPort()]}
	}
	others := map[uint32]bpf.Backend{}
	for id, b := range backends {
		addr := backendAddr(b)
		b.Endpoint = idOf[addr]
		if shared[addr] {
			b.Flags |= bpf.BackendShared
		}
		plan := p.byID[b.Service]
		if plan != nil && plan.backends[id] != (bpf.Backend{}) {
			plan.backends[id] = b
		} else if b != p.actual.backends[id] {
			others[id] = b
		}
	}
	return out, others
}

// allBackends returns the actual backends overlaid by the planned ones, and
// which planned services use each address.
func (p *planner) allBackends() (map[uint32]bpf.Backend, map[netip.AddrPort]map[string]bool) {
	all, owners := map[uint32]bpf.Backend{}, map[netip.AddrPort]map[string]bool{}
	for id, b := range p.actual.backends {
		all[id] = p.routed(b.Addr.Netip(), b)
	}
	for name, plan := range p.plans {
		if plan.err != nil {
			continue
		}
		for id, b := range plan.backends {
			all[id] = b
			addr := backendAddr(b)
			note(owners, addr, name)
		}
	}
	return all, owners
}

// leads returns the frontends that lead to each endpoint, now or after the
// plans are carried out.
func (p *planner) leads(backends map[uint32]bpf.Backend) map[bpf.Tuple]map[uint32]bool {
	type way struct {
		family Family
		proto  uint8
		id     uint32
	}
	ways := map[uint32]map[way]bool{} // by service
	add := func(key bpf.Tuple, f bpf.Frontend) {
		note(ways, f.Service, way{FamilyOf(key.Addr.Netip()), key.Proto, f.Id})
	}
	for key, f := range p.actual.frontends {
		add(key, f)
	}
	for _, plan := range p.plans {
		if plan.err != nil {
			continue
		}
		for key, f := range plan.frontends {
			add(key, f)
		}
	}
	out := map[bpf.Tuple]map[uint32]bool{}
	for _, b := range backends {
		addr := backendAddr(b)
		for w := range ways[b.Service] {
			if w.family != FamilyOf(addr.Addr()) {
				continue
			}
			note(out, bpf.TupleFrom(addr, w.proto), w.id)
		}
	}
	return out
}

// endpointIDs returns the endpoint id of each backend address: the one that it
// has, else the lowest id of a backend there.
func (p *planner) endpointIDs(backends map[uint32]bpf.Backend) map[netip.AddrPort]uint32 {
	out := map[netip.AddrPort]uint32{}
	for key, e := range p.actual.endpoints {
		out[key.AddrPort()] = e.Id
	}
	ids := make([]uint32, 0, len(backends))
	for id := range backends {
		ids = append(ids, id)
	}
	// Those that are in the map already decide before those that are new.
	slices.SortFunc(ids, func(a, b uint32) int {
		_, x := p.actual.backends[a]
		_, y := p.actual.backends[b]
		if x != y {
			return map[bool]int{true: -1, false: 1}[x]
		}
		return cmp.Compare(a, b)
	})
	for _, id := range ids {
		addr := backendAddr(backends[id])
		if _, ok := out[addr]; ok {
			continue
		}
		out[addr] = id
		if old, ok := p.actual.backends[id]; ok && old.Endpoint != 0 {
			out[addr] = old.Endpoint
		}
	}
	return out
}
