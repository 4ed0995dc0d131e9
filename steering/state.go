package steering

import (
	"fmt"
	"net/netip"

	"siskin.dev/siskin/bpf"
)

// state mirrors the maps: it holds what was read from or written to them
// with success, and nothing else.
type state struct {
	gate      map[uint32]uint64
	frontends map[bpf.Tuple]bpf.Frontend
	vips      map[uint32]bpf.Tuple
	echoes    map[bpf.Addr]uint32
	backends  map[uint32]bpf.Backend
	endpoints map[bpf.Tuple]bpf.Endpoint
	services  map[uint32]bpf.ServiceName
	// runs are the parts of the Maglev array that programs may read: those
	// that a frontend refers to, and those of which no grace period has passed
	// since one did.
	runs map[bpf.Table][]uint32
}

func newState() *state {
	return &state{
		gate:      map[uint32]uint64{},
		frontends: map[bpf.Tuple]bpf.Frontend{},
		vips:      map[uint32]bpf.Tuple{},
		echoes:    map[bpf.Addr]uint32{},
		backends:  map[uint32]bpf.Backend{},
		endpoints: map[bpf.Tuple]bpf.Endpoint{},
		services:  map[uint32]bpf.ServiceName{},
		runs:      map[bpf.Table][]uint32{},
	}
}

// readState reads all maps. It writes nothing.
func readState(m Maps) (*state, error) {
	s := newState()
	var err error
	read := func(what string, f func() error) {
		if err == nil {
			if e := f(); e != nil {
				err = fmt.Errorf("read the %s map: %w", what, e)
			}
		}
	}
	read("gate", func() (e error) { s.gate, e = m.Gate.All(); return })
	read("frontends", func() (e error) { s.frontends, e = m.Frontends.All(); return })
	read("vips", func() (e error) { s.vips, e = m.VIPs.All(); return })
	read("echoes", func() (e error) { s.echoes, e = m.Echoes.All(); return })
	read("backends", func() (e error) { s.backends, e = m.Backends.All(); return })
	read("endpoints", func() (e error) { s.endpoints, e = m.Endpoints.All(); return })
	read("services", func() (e error) { s.services, e = m.Services.All(); return })
	for _, f := range s.frontends {
		for _, t := range f.Tables {
			if t.Length == 0 || s.runs[t] != nil {
				continue
			}
			read("maglev", func() (e error) { s.runs[t], e = m.Maglev.Read(t.Offset, t.Length); return })
		}
	}
	return s, err
}

// put writes an entry that is not in the map yet, and then remembers it.
func put[K, V comparable](t Table[K, V], mirror map[K]V, what string, k K, v V) error {
	if old, ok := mirror[k]; ok && old == v {
		return nil
	}
	if err := t.Put(k, v); err != nil {
		return fmt.Errorf("write %s: %w", what, err)
	}
	mirror[k] = v
	return nil
}

// remove deletes an entry from the map, and then forgets it.
func remove[K comparable, V any](t Table[K, V], mirror map[K]V, what string, k K) error {
	if _, ok := mirror[k]; !ok {
		return nil
	}
	if err := t.Delete(k); err != nil {
		return fmt.Errorf("delete %s: %w", what, err)
	}
	delete(mirror, k)
	return nil
}

func backendAddr(b bpf.Backend) netip.AddrPort {
	return netip.AddrPortFrom(b.Addr.Netip(), bpf.Port(b.Port))
}

func retiredBackend(b bpf.Backend) bool { return b.Flags&bpf.BackendRetired != 0 }

func retiredFrontend(f bpf.Frontend) bool { return f.Flags&bpf.FrontendRetired != 0 }

func frontendOf(t bpf.Tuple) Frontend { return Frontend{Addr: t.AddrPort(), Proto: Proto(t.Proto)} }

func (f Frontend) tuple() bpf.Tuple { return bpf.TupleFrom(unmap(f.Addr), uint8(f.Proto)) }

// referenced returns the runs that a frontend refers to, retired ones too.
func (s *state) referenced() map[bpf.Table]bool {
	out := map[bpf.Table]bool{}
	for _, f := range s.frontends {
		for _, t := range f.Tables {
			if t.Length > 0 {
				out[t] = true
			}
		}
	}
	return out
}

// selectable returns the backends that stand in a table of a frontend; with
// live, of one that takes new connections.
func (s *state) selectable(live bool) map[uint32]bool {
	out := map[uint32]bool{}
	for _, f := range s.frontends {
		if live && retiredFrontend(f) {
			continue
		}
		for _, t := range f.Tables {
			for _, id := range s.runs[t] {
				out[id] = true
			}
		}
	}
	return out
}

// liveVersions returns the version ids (indexes into latencies) that have a
// backend that is not retired.
func (s *state) liveVersions() map[uint32]bool {
	out := map[uint32]bool{}
	for _, b := range s.backends {
		if !retiredBackend(b) {
			out[b.Version] = true
		}
	}
	return out
}
