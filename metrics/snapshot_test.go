package metrics

import (
	"errors"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/bpf"
)

// newMaps makes the kernel's maps, small and unpinned.
func newMaps(t *testing.T) Maps {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make BPF maps")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	made := func(name string, entries uint32) *ebpf.Map {
		s := spec.Maps[name].Copy()
		s.MaxEntries = entries
		m, err := ebpf.NewMap(s)
		if err != nil {
			t.Fatalf("make map %s: %v", name, err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	return Maps{
		Counters: made("counters", 1024), Requests: made("requests", 1024), Latencies: made("latencies", 300),
		Reasons: made("reasons", spec.Maps["reasons"].MaxEntries),
		Aging:   made("aging", 1), Flows: made("flows", 512), Tries: made("tries", 1),
	}
}

// spread writes one value for each CPU.
func spread[V any](t *testing.T, m *ebpf.Map, id uint32, value func(cpu int) V) {
	t.Helper()
	cpus := make([]V, ebpf.MustPossibleCPU())
	for i := range cpus {
		cpus[i] = value(i)
	}
	if err := m.Put(id, cpus); err != nil {
		t.Fatalf("write entry %d of %v: %v", id, m, err)
	}
}

func TestRootReadSumsOverCPUs(t *testing.T) {
	m := newMaps(t)
	cpus := uint64(ebpf.MustPossibleCPU())
	all := make([]uint32, 1024)
	for id := range uint32(len(all)) {
		all[id] = id
		spread(t, m.Counters, id, func(cpu int) bpf.Tally {
			return bpf.Tally{Opened: uint64(id), SelectedNs: uint64(id) + uint64(cpu)}
		})
	}
	lookups := map[string][]uint32{
		"none":                nil,
		"all, in batches":     all,
		"a batch and one":     all[:batch+1],
		"the first":           {0},
		"the last":            {1023},
		"apart":               {1000, 7},
		"together, unordered": {9, 3, 8, 3, 5},
	}
	for name, ids := range lookups {
		snap, err := Read(m, Wanted{Backends: ids})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := map[uint32]bpf.Tally{}
		for _, id := range ids {
			want[id] = bpf.Tally{Opened: cpus * uint64(id), SelectedNs: uint64(id) + cpus - 1}
		}
		if diff := cmp.Diff(want, snap.Backends); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestRootReadEverything(t *testing.T) {
	m := newMaps(t)
	m.Sized = map[string]*ebpf.Map{"flows": m.Flows}
	cpus := uint64(ebpf.MustPossibleCPU())
	spread(t, m.Latencies, 299, func(cpu int) bpf.Latency {
		var l bpf.Latency
		l.Connect.Bucket[7], l.Connect.SumNs = 2, 10
		l.Response.Bucket[215], l.Response.SumNs = 3, 20
		return l
	})
	for i, r := range bpf.Reasons() {
		spread(t, m.Reasons, uint32(r.Index), func(int) uint64 { return uint64(i + 1) })
	}
	spread(t, m.Tries, 0, func(cpu int) bpf.PortTries {
		return bpf.PortTries{Found: [17]uint64{1, 16: 2}, Exhausted: 3, Sum: 4}
	})
	// The kernel keeps a timer's bytes to itself, whatever is written there.
	if err := m.Aging.Put(uint32(0), bpf.Clockwork{Taken: 12, Freed: 5, Unproven: [2]int64{3, 5}, Ticks: 99}); err != nil {
		t.Fatal(err)
	}
	before, err := Read(m, Wanted{})
	if err != nil {
		t.Fatal(err)
	}
	spread(t, m.Requests, 5, func(cpu int) bpf.Answers {
		return bpf.Answers{Of: [12]uint64{bpf.Answer2xx: uint64(cpu + 1), bpf.AnswerLost: 7}}
	})
	snap, err := Read(m, Wanted{Backends: []uint32{5, 6}, Latencies: []uint32{299}})
	if err != nil {
		t.Fatal(err)
	}
	if snap.At <= before.At {
		t.Errorf("the clock went from %v to %v", before.At, snap.At)
	}
	l := snap.Latencies[299]
	if l.Connect.Bucket[7] != 2*cpus || l.Response.Bucket[215] != 3*cpus ||
		l.Connect.SumNs != 10*cpus || l.Response.SumNs != 20*cpus || Count(&l.Connect) != 2*cpus {
		t.Errorf("latencies are not the sum over %d CPUs: %+v", cpus, l)
	}
	if got, want := snap.Requests[5].Of, ([12]uint64{bpf.Answer2xx: cpus * (cpus + 1) / 2, bpf.AnswerLost: 7 * cpus}); got != want || snap.Requests[6].Of != ([12]uint64{}) {
		t.Errorf("requests %v and %v, want %v and none", got, snap.Requests[6].Of, want)
	}
	for i, r := range bpf.Reasons() {
		if got, want := snap.Reasons[r.Index], uint64(i+1)*cpus; got != want {
			t.Errorf("reason %s: %d, want %d", r.Name, got, want)
		}
	}
	if want := (bpf.PortTries{Found: [17]uint64{cpus, 16: 2 * cpus}, Exhausted: 3 * cpus, Sum: 4 * cpus}); snap.PortTries != want {
		t.Errorf("searches for source ports %+v, want %+v", snap.PortTries, want)
	}
	if want := (FlowTable{Entries: 7, Capacity: 512, Handshakes: 3, Datagrams: 5, Ticks: 99}); snap.FlowTable != want {
		t.Errorf("flow table %+v, want %+v", snap.FlowTable, want)
	}
	if got := slices.Collect(maps.Keys(snap.MapBytes)); len(got) != 1 || snap.MapBytes["flows"] < 512*64 {
		t.Errorf("map sizes %v: want that of 512 flows", snap.MapBytes)
	}
}

func TestRootReadOutsideTheMap(t *testing.T) {
	m := newMaps(t)
	for _, w := range []Wanted{{Backends: []uint32{1024}}, {Latencies: []uint32{300}}} {
		if _, err := Read(m, w); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("reading %v: error %v, want one that wraps ErrKeyNotExist", w, err)
		}
	}
}

func TestFlowTableNeverBelowZero(t *testing.T) {
	got := flowTable(bpf.Clockwork{Taken: 1, Freed: 2, Unproven: [2]int64{-1, -1}}, 10)
	if want := (FlowTable{Capacity: 10}); got != want {
		t.Errorf("flow table %+v, want %+v", got, want)
	}
}
