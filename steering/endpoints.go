package steering

import (
	"cmp"
	"net/netip"
	"slices"

	"siskin.dev/siskin/bpf"
)

// endpointPlan is what all services together make of one endpoint.
type endpointPlan struct {
	entry    bpf.Endpoint
	services map[string]bool // those that lead there
}

// endpoints works out the endpoints of all services, planned and actual, and
// completes the backends of the plans with them. The second result is the
// backends of others that change.
//
// An endpoint keeps the frontend that it has when others come to lead there
// too: it may have flows from the time when it was alone, which have no alias.
// A backend is shared until the endpoint in the map names the only frontend,
// so between the two writes no flow is without a way back.
func (p *planner) endpoints() (map[bpf.Tuple]*endpointPlan, map[uint32]bpf.Backend) {
	backends, owners := p.allBackends()
	all := []map[bpf.Tuple]bpf.Frontend{p.actual.frontends}
	for _, plan := range p.byID {
		all = append(all, plan.frontends)
	}
	leads := leadsOf(backends, all...)
	idOf := p.endpointIDs(backends)
	out := map[bpf.Tuple]*endpointPlan{}
	shared, unsettled := map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	for key, ids := range leads {
		addr := key.AddrPort()
		old, known := p.actual.endpoints[key]
		_, alive := p.actual.vips[old.Frontend]
		if alive {
			ids[old.Frontend] = true
		}
		entry := bpf.Endpoint{Id: idOf[addr], Source: old.Source}
		switch only := onlyOf(ids); {
		case only != 0:
			entry.Frontend = only
			unsettled[addr] = unsettled[addr] || known && old.Frontend != only
		case alive:
			entry.Frontend = old.Frontend
			fallthrough
		default:
			shared[addr] = true
		}
		if path, err := p.path(addr.Addr()); err == nil && path.Source.IsValid() {
			entry.Source = bpf.AddrFrom(path.Source)
		}
		out[key] = &endpointPlan{entry: entry, services: owners[addr]}
	}
	others := map[uint32]bpf.Backend{}
	for id, b := range backends {
		addr := backendAddr(b)
		b.Endpoint = idOf[addr]
		switch {
		case shared[addr]:
			b.Flags |= bpf.BackendShared
		case !unsettled[addr]:
			b.Flags &^= bpf.BackendShared
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

// onlyOf returns the id of a set of one, else 0.
func onlyOf(ids map[uint32]bool) uint32 {
	if len(ids) == 1 {
		for id := range ids {
			return id
		}
	}
	return 0
}

// allBackends returns the actual backends overlaid by the planned ones, and
// which planned services use each address.
func (p *planner) allBackends() (map[uint32]bpf.Backend, map[netip.AddrPort]map[string]bool) {
	all, owners := map[uint32]bpf.Backend{}, map[netip.AddrPort]map[string]bool{}
	for id, b := range p.actual.backends {
		all[id] = p.routed(b.Addr.Netip(), b)
	}
	for _, plan := range p.byID {
		for id, b := range plan.backends {
			all[id] = b
			addr := backendAddr(b)
			note(owners, addr, plan.desired.Name)
		}
	}
	return all, owners
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

// leadsOf returns the ids of the frontends that lead to each endpoint: those
// of the backend's service, of its family.
func leadsOf(backends map[uint32]bpf.Backend, frontends ...map[bpf.Tuple]bpf.Frontend) map[bpf.Tuple]map[uint32]bool {
	type way struct {
		family Family
		proto  uint8
		id     uint32
	}
	ways := map[uint32]map[way]bool{} // by service
	for _, fs := range frontends {
		for key, f := range fs {
			note(ways, f.Service, way{FamilyOf(key.Addr.Netip()), key.Proto, f.Id})
		}
	}
	out := map[bpf.Tuple]map[uint32]bool{}
	for _, b := range backends {
		addr := backendAddr(b)
		for w := range ways[b.Service] {
			if w.family == FamilyOf(addr.Addr()) {
				note(out, bpf.TupleFrom(addr, w.proto), w.id)
			}
		}
	}
	return out
}
