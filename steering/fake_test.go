package steering

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"siskin.dev/siskin/bpf"
)

var errFault = errors.New("injected fault")

// fakeKernel is a set of maps that may fail, and that checks after every write
// that no packet could go astray.
type fakeKernel struct {
	t      failer
	gate   *fakeTable[uint32, uint64]
	fronts *fakeTable[bpf.Tuple, bpf.Frontend]
	vips   *fakeTable[uint32, bpf.Tuple]
	echoes *fakeTable[bpf.Addr, uint32]
	backs  *fakeTable[uint32, bpf.Backend]
	ends   *fakeTable[bpf.Tuple, bpf.Endpoint]
	servs  *fakeTable[uint32, bpf.ServiceName]
	words  []Word
	maglev []uint32

	fault  func() bool // whether the next write fails
	writes int
	// lagging is what a program that began before the last grace period may
	// still read: table entries, and backends.
	lagging  map[uint32]bool
	backends map[uint32]bool
	flows    map[uint32]uint64
	inUse    map[uint32]bool
	graces   int
	zeroed   []uint32
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

func newFakeKernel(t failer) *fakeKernel {
	k := &fakeKernel{
		t: t, fault: func() bool { return false },
		words: make([]Word, 64), maglev: make([]uint32, 40000),
		lagging: map[uint32]bool{}, backends: map[uint32]bool{},
		flows: map[uint32]uint64{}, inUse: map[uint32]bool{},
	}
	k.gate = newFakeTable[uint32, uint64](k, "gate", true)
	k.fronts = newFakeTable[bpf.Tuple, bpf.Frontend](k, "frontends", false)
	k.vips = newFakeTable[uint32, bpf.Tuple](k, "vips", true)
	k.echoes = newFakeTable[bpf.Addr, uint32](k, "echoes", false)
	k.backs = newFakeTable[uint32, bpf.Backend](k, "backends", true)
	k.ends = newFakeTable[bpf.Tuple, bpf.Endpoint](k, "endpoints", false)
	k.servs = newFakeTable[uint32, bpf.ServiceName](k, "services", true)
	return k
}

func (k *fakeKernel) maps() Maps {
	return Maps{
		Gate: k.gate, Frontends: k.fronts, VIPs: k.vips, Echoes: k.echoes, Backends: k.backs, Endpoints: k.ends, Services: k.servs,
		Words: k, Maglev: (*fakeSlots)(k),
		FlowsOf:        func() (map[uint32]uint64, error) { return maps.Clone(k.flows), k.try() },
		FrontendsInUse: func() (map[uint32]bool, error) { return maps.Clone(k.inUse), k.try() },
		Grace:          k.grace,
		Reset: func(id uint32) error {
			k.zeroed = append(k.zeroed, id)
			return k.try()
		},
		Limits: Limits{Services: 32, Frontends: 64, Backends: 256, Words: 64, Versions: 64, Maglev: 40000, Gate: fakeGate},
	}
}

func (k *fakeKernel) try() error {
	if k.fault() {
		return errFault
	}
	return nil
}

func (k *fakeKernel) grace() error {
	if err := k.try(); err != nil {
		return err
	}
	k.graces++
	clear(k.lagging)
	clear(k.backends)
	k.note()
	return nil
}

// note remembers what programs may read from now on.
func (k *fakeKernel) note() {
	for _, f := range k.fronts.m {
		for _, t := range f.Tables {
			for i := t.Offset; i < t.Offset+t.Length; i++ {
				k.lagging[i] = true
				if !retiredFrontend(f) {
					k.backends[k.maglev[i]] = true
				}
			}
		}
	}
}

func (k *fakeKernel) Load(i uint32) Word { return k.words[i] }

func (k *fakeKernel) Store(i uint32, w Word) {
	k.words[i] = w
	k.writes++
}

func (k *fakeKernel) Swap(i uint32, old, w Word) bool {
	k.writes++
	if k.words[i] != old {
		return false
	}
	k.words[i] = w
	return true
}

type fakeSlots fakeKernel

func (s *fakeSlots) Fill(offset uint32, ids []uint32) error {
	k := (*fakeKernel)(s)
	k.writes++
	for i := range ids {
		if k.lagging[offset+uint32(i)] {
			k.t.Fatalf("entry %d was filled while a program may read it", offset+uint32(i))
		}
	}
	if k.fault() {
		copy(k.maglev[offset:], ids[:len(ids)/2]) // a batch that broke off
		return errFault
	}
	copy(k.maglev[offset:], ids)
	return nil
}

func (s *fakeSlots) Read(offset, length uint32) ([]uint32, error) {
	return slices.Clone(s.maglev[offset : offset+length]), nil
}

type fakeTable[K, V comparable] struct {
	k     *fakeKernel
	name  string
	array bool
	m     map[K]V
}

func newFakeTable[K, V comparable](k *fakeKernel, name string, array bool) *fakeTable[K, V] {
	return &fakeTable[K, V]{k: k, name: name, array: array, m: map[K]V{}}
}

func (f *fakeTable[K, V]) Put(key K, v V) error {
	f.k.writes++
	if f.k.fault() {
		return fmt.Errorf("%s: %w", f.name, errFault)
	}
	f.m[key] = v
	f.k.check(f.name)
	return nil
}

func (f *fakeTable[K, V]) Delete(key K) error {
	f.k.writes++
	if f.k.fault() {
		return fmt.Errorf("%s: %w", f.name, errFault)
	}
	if f.name == "backends" {
		if id := any(key).(uint32); f.k.backends[id] || f.k.flows[id] > 0 {
			f.k.t.Fatalf("backend %d was deleted while it is in use", id)
		}
	}
	delete(f.m, key)
	f.k.check(f.name)
	return nil
}

func (f *fakeTable[K, V]) All() (map[K]V, error) {
	out := maps.Clone(f.m)
	if f.array {
		var zero V
		maps.DeleteFunc(out, func(_ K, v V) bool { return v == zero })
	}
	return out, nil
}

// check is what must hold at every moment, seen from a packet.
func (k *fakeKernel) check(wrote string) {
	k.t.Helper()
	k.note()
	for key, f := range k.fronts.m {
		if k.vips.m[f.Id] != key {
			k.t.Fatalf("after a write to %s: frontend %s has id %d, which is %v", wrote, frontendOf(key), f.Id, k.vips.m[f.Id])
		}
		word, bit := bpf.GateBit(bpf.GateFrontends, key, fakeGate)
		if k.gate.m[word]&bit == 0 {
			k.t.Fatalf("after a write to %s: frontend %s is shut out by the gate", wrote, frontendOf(key))
		}
		for slot, t := range f.Tables {
			seen := map[uint32]bool{}
			for _, id := range k.maglev[t.Offset : t.Offset+t.Length] {
				if !seen[id] {
					seen[id] = true
					k.checkEntry(wrote, key, f, slot, id)
				}
			}
		}
	}
	at := map[uint32]netip.AddrPort{}
	for id, b := range k.backs.m {
		if old, ok := at[b.Endpoint]; ok && old != backendAddr(b) {
			k.t.Fatalf("after a write to %s: endpoint %d is both %s and %s (backend %d)", wrote, b.Endpoint, old, backendAddr(b), id)
		}
		at[b.Endpoint] = backendAddr(b)
	}
}

func (k *fakeKernel) checkEntry(wrote string, key bpf.Tuple, f bpf.Frontend, slot int, id uint32) {
	k.t.Helper()
	b, ok := k.backs.m[id]
	if !ok || b.Service != f.Service || b.Port == 0 {
		k.t.Fatalf("after a write to %s: frontend %s slot %d leads to backend %d: %+v", wrote, frontendOf(key), slot, id, b)
	}
	if retiredFrontend(f) {
		return
	}
	if retiredBackend(b) {
		k.t.Fatalf("after a write to %s: live frontend %s slot %d leads to retired backend %d", wrote, frontendOf(key), slot, id)
	}
	addr := backendAddr(b)
	ekey := bpf.TupleFrom(addr, key.Proto)
	e, ok := k.ends.m[ekey]
	if !ok || e.Id != b.Endpoint {
		k.t.Fatalf("after a write to %s: frontend %s leads to %s, whose endpoint is %+v, its backend says %d", wrote, frontendOf(key), addr, e, b.Endpoint)
	}
	if e.Frontend != f.Id && b.Flags&bpf.BackendShared == 0 {
		k.t.Fatalf("after a write to %s: no way back from %s to frontend %s: %+v, backend flags %x", wrote, addr, frontendOf(key), e, b.Flags)
	}
	if word, bit := bpf.GateBit(bpf.GateEndpoints, ekey, fakeGate); k.gate.m[word]&bit == 0 {
		k.t.Fatalf("after a write to %s: endpoint %s is shut out by the gate", wrote, addr)
	}
}

// fakePaths is a host with three kinds of neighbours.
type fakePaths struct{ lost map[netip.Addr]bool }

func (p fakePaths) Path(a netip.Addr) (Path, error) {
	if p.lost[a] {
		return Path{}, errors.New("no route")
	}
	switch a.AsSlice()[len(a.AsSlice())-1] % 3 {
	case 0:
		return Path{Host: true, Source: a}, nil
	case 1:
		return Path{Ifindex: 4, Source: netip.MustParseAddr("198.18.0.1")}, nil
	}
	return Path{Remote: true, Ifindex: 2, Source: netip.MustParseAddr("198.18.0.1")}, nil
}

const fakeGate = 64 // words: so few that tuples share bits

func newTestReconciler(k *fakeKernel) *Reconciler {
	return New(k.maps(), fakePaths{}, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// service builds a desired state: versions are "name addr addr…".
func service(name, frontend string, versions ...Version) Service {
	return Service{
		Name: name, Frontends: []Frontend{{netip.MustParseAddrPort(frontend), TCP}},
		Versions: versions, Weights: map[string]Share{},
	}
}

func version(name string, addrs ...string) Version {
	v := Version{Name: name}
	for _, a := range addrs {
		v.Backends = append(v.Backends, Backend{Addr: netip.MustParseAddrPort(a), Weight: 1})
	}
	return v
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
