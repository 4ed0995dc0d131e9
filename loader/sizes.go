package loader

import (
	"fmt"
	"log/slog"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
)

// Sizes are the numbers of entries of the maps; zero takes the default.
type Sizes struct {
	Flows     uint32 // connections at a time; 262144
	Frontends uint32 // addresses that clients connect to
	Backends  uint32 // addresses that serve, counted per version
	Services  uint32
	Versions  uint32 // versions of all services together
	Words     uint32 // weight words: services or groups of them
	Maglev    uint32 // entries of all Maglev tables together
	Releases  uint32 // releases that run at a time; 16
}

// The most that SizesFor takes: the Maglev tables of so many backends are 4 GB.
const (
	MaxServices = 1 << 20
	MaxBackends = 1<<22 - 1
)

// SizesFor returns sizes for so many services and backends, in the proportions
// of the defaults; zero leaves what depends on it at the default. Ids begin at
// 1, so each map has one entry more. A backend among ten needs 102 entries of
// a Maglev table, one of two 511; 256 are what the defaults have.
func SizesFor(services, backends uint32) (Sizes, error) {
	var s Sizes
	if services > MaxServices || backends > MaxBackends {
		return s, fmt.Errorf("at most %d services and %d backends are possible", MaxServices, MaxBackends)
	}
	if services > 0 {
		s.Services = services + 1
		s.Frontends, s.Words, s.Versions = 2*services+1, 2*services+1, 2*services+1
	}
	if backends > 0 {
		s.Backends, s.Maglev = backends+1, 256*(backends+1)
	}
	return s, nil
}

// slotsPerBucket is how many flows there are for each bucket of their index
// (bpf/table.h).
const slotsPerBucket = 3

// perMap lists which size rules which map. Endpoints are per address and
// protocol, hence two for each backend.
func (s *Sizes) perMap() []mapSize {
	return []mapSize{
		{"flows", &s.Flows, 1}, {"aliases", &s.Flows, 1}, {"vacant", &s.Flows, 1}, {"talks", &s.Flows, 1}, {"flow_index", &s.Flows, -slotsPerBucket},
		{"backends", &s.Backends, 1}, {"counters", &s.Backends, 1}, {"requests", &s.Backends, 1}, {"hops", &s.Backends, 1}, {"endpoints", &s.Backends, 2}, {"shortages", &s.Backends, 2},
		{"frontends", &s.Frontends, 1}, {"vips", &s.Frontends, 1}, {"echoes", &s.Frontends, 1},
		{"services", &s.Services, 1},
		{"latencies", &s.Versions, 1},
		{"words", &s.Words, 1}, {"leases", &s.Words, 1}, {"releases", &s.Words, 1},
		{"rooms", &s.Releases, 1}, {"breakers", &s.Releases, 1}, {"successes", &s.Releases, 1},
		{"cells", &s.Releases, bpf.CellsPerRoom}, {"outcomes", &s.Releases, 1024},
		{"cutoffs", &s.Words, 1},
		{"maglev", &s.Maglev, 1},
	}
}

type mapSize struct {
	name   string
	size   *uint32
	factor int // entries of the map for one of the size; -3: one for three
}

func (m mapSize) entries() uint32 {
	if m.factor < 0 {
		per := uint32(-m.factor)
		return (*m.size + per - 1) / per
	}
	return *m.size * uint32(m.factor)
}

// apply writes the sizes that are not zero into the spec.
func (s Sizes) apply(spec *ebpf.CollectionSpec) {
	for _, m := range s.perMap() {
		if ms := spec.Maps[m.name]; ms != nil && *m.size != 0 {
			ms.MaxEntries = m.entries()
		}
	}
	if ms := spec.Maps["gate"]; ms != nil {
		ms.MaxEntries = max(ms.MaxEntries, gateWords(max(s.Frontends, s.Backends)))
	}
}

// follow gives maps that are yet to be made the sizes of those found: an index
// of theirs must be one of the others'.
func follow(spec *ebpf.CollectionSpec, found map[string]*ebpf.Map) {
	there := sizesOf(found)
	for _, m := range there.perMap() {
		if ms := spec.Maps[m.name]; ms != nil && found[m.name] == nil && *m.size != 0 {
			ms.MaxEntries = m.entries()
		}
	}
}

// gateWords is how many words of 64 bits the gate has for so many frontends or
// backends: eight bits for each, so that one foreign packet in eight at most
// finds a bit of another's set. It should not have more, since it is good only
// while it stays in a cache.
func gateWords(n uint32) uint32 {
	side := (8*uint64(n) + 63) / 64
	return uint32(2 * side)
}

// Sizes returns the sizes that the maps really have; where two maps share a
// size, the smaller one.
func (l *Loader) Sizes() Sizes { return sizesOf(l.maps) }

func sizesOf(maps map[string]*ebpf.Map) Sizes {
	var s Sizes
	for _, m := range s.perMap() {
		loaded := maps[m.name]
		if loaded == nil || m.factor < 0 {
			continue
		}
		n := loaded.MaxEntries() / uint32(m.factor)
		if *m.size == 0 || n < *m.size {
			*m.size = n
		}
	}
	return s
}

func (o Options) withDefaults() Options {
	if o.BPFFS == "" {
		o.BPFFS = DefaultBPFFS
	}
	if o.PortMin == 0 && o.PortMax == 0 {
		o.PortMin, o.PortMax = 61000, 65535
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
