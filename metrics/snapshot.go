// Package metrics turns the kernel's counters into Prometheus metrics.
//
// The programs count; user space only reads. A Snapshot is one reading of the
// per-CPU maps, summed. The Collector takes one for each scrape and names what
// it holds; the counters live in pinned maps, so they go on over a restart of
// the daemon.
package metrics

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
)

// Maps are the kernel's maps that a Snapshot is read from.
type Maps struct {
	Counters  *ebpf.Map // backend id to bpf.Tally, per CPU
	Requests  *ebpf.Map // backend id to bpf.Answers, per CPU
	Latencies *ebpf.Map // latency index of a version to bpf.Latency, per CPU
	Reasons   *ebpf.Map // bpf.Reason to packets, per CPU
	Aging     *ebpf.Map // one bpf.Clockwork
	Flows     *ebpf.Map // only its capacity is read
	Tries     *ebpf.Map // one bpf.PortTries, per CPU

	// Sized names the maps whose memory is reported. It costs a file of
	// /proc for each map, so it is empty where nobody asks.
	Sized map[string]*ebpf.Map
}

// Wanted names the entries of the large arrays that are worth reading.
type Wanted struct {
	Backends  []uint32 // backend ids
	Latencies []uint32 // latency indices
}

// FlowTable is the state of the flow table.
type FlowTable struct {
	Entries    uint64 // flow records in use
	Capacity   uint64
	Handshakes uint64 // TCP flows that are not established yet
	Datagrams  uint64 // UDP flows
	Ticks      uint64 // runs of the kernel's aging timer
}

// Snapshot is one reading of the counters, summed over the CPUs. The kernel
// counts on while it is taken: two counters of one packet may differ by it.
type Snapshot struct {
	At        time.Duration          // CLOCK_MONOTONIC, as in Tally.SelectedNs
	Backends  map[uint32]bpf.Tally   // by backend id
	Requests  map[uint32]bpf.Answers // by backend id
	Latencies map[uint32]bpf.Latency // by latency index
	Reasons   map[bpf.Reason]uint64  // every reason that has a name
	FlowTable FlowTable
	PortTries bpf.PortTries
	MapBytes  map[string]uint64 // memory of the maps in Maps.Sized
}

// Read takes a snapshot. An id in w that lies outside its map is an error: it
// can only come from another layout than the one that is loaded.
func Read(m Maps, w Wanted) (Snapshot, error) {
	s := Snapshot{At: time.Duration(bpf.Now()), MapBytes: make(map[string]uint64, len(m.Sized))}
	var err error
	if s.Backends, err = readPerCPU(m.Counters, w.Backends, sumTallies); err != nil {
		return Snapshot{}, fmt.Errorf("read the counters: %w", err)
	}
	if s.Requests, err = readPerCPU(m.Requests, w.Backends, sumAnswers); err != nil {
		return Snapshot{}, fmt.Errorf("read the requests: %w", err)
	}
	if s.Latencies, err = readPerCPU(m.Latencies, w.Latencies, sumLatencies); err != nil {
		return Snapshot{}, fmt.Errorf("read the latencies: %w", err)
	}
	if s.Reasons, err = readReasons(m.Reasons); err != nil {
		return Snapshot{}, fmt.Errorf("read the reasons: %w", err)
	}
	tries, err := readPerCPU(m.Tries, []uint32{0}, sumPortTries)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the searches for source ports: %w", err)
	}
	s.PortTries = tries[0]
	var c bpf.Clockwork
	if err := m.Aging.Lookup(uint32(0), &c); err != nil {
		return Snapshot{}, fmt.Errorf("read the state of the flow table: %w", err)
	}
	s.FlowTable = flowTable(c, m.Flows.MaxEntries())
	for name, sized := range m.Sized {
		info, err := sized.Info()
		if err != nil {
			return Snapshot{}, fmt.Errorf("read the size of map %s: %w", name, err)
		}
		if bytes, ok := info.Memlock(); ok {
			s.MapBytes[name] = bytes
		}
	}
	return s, nil
}

// flowTable reads the clockwork's numbers. They are counted by many CPUs, so a
// difference may be off by the packets of this instant, but is never below 0.
func flowTable(c bpf.Clockwork, capacity uint32) FlowTable {
	return FlowTable{
		Entries:    less(c.Taken, c.Freed),
		Capacity:   uint64(capacity),
		Handshakes: uint64(max(c.Unproven[0], 0)),
		Datagrams:  uint64(max(c.Unproven[1], 0)),
		Ticks:      c.Ticks,
	}
}

// less returns a - b, or 0 where b was read later and is ahead.
func less(a, b uint64) uint64 { return a - min(a, b) }

func readReasons(m *ebpf.Map) (map[bpf.Reason]uint64, error) {
	var ids []uint32
	for _, r := range bpf.Reasons() {
		ids = append(ids, uint32(r.Index))
	}
	counts, err := readPerCPU(m, ids, sumCounts)
	if err != nil {
		return nil, err
	}
	out := make(map[bpf.Reason]uint64, len(counts))
	for id, n := range counts {
		out[bpf.Reason(id)] = n
	}
	return out, nil
}

// dense is how many entries of an array a batch may read for each wanted one:
// a lookup of its own costs about as much as reading that many in a row.
const dense = 4

// readPerCPU reads the entries ids of a per-CPU array and sums each over the
// CPUs: in one pass where the ids lie close together, as those of a daemon
// that has not lived long do, else one by one.
func readPerCPU[V any](m *ebpf.Map, ids []uint32, sum func([]V) V) (map[uint32]V, error) {
	if len(ids) == 0 {
		return map[uint32]V{}, nil
	}
	ids = slices.Clone(ids)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	last := ids[len(ids)-1]
	if last >= m.MaxEntries() {
		return nil, fmt.Errorf("entry %d of %d: %w", last, m.MaxEntries(), ebpf.ErrKeyNotExist)
	}
	if uint64(last) < dense*uint64(len(ids)) {
		return readDense(m, ids, sum)
	}
	out := make(map[uint32]V, len(ids))
	var cpus []V
	for _, id := range ids {
		if err := m.Lookup(id, &cpus); err != nil {
			return nil, fmt.Errorf("entry %d: %w", id, err)
		}
		out[id] = sum(cpus)
	}
	return out, nil
}

// batch is how many entries one system call reads: few enough that the
// buffers stay small on a host with hundreds of CPUs.
const batch = 64

// readDense reads the array from its start to the last of ids, which are
// sorted, and keeps what is in ids.
func readDense[V any](m *ebpf.Map, ids []uint32, sum func([]V) V) (map[uint32]V, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs: %w", err)
	}
	last := ids[len(ids)-1]
	size := min(batch, int(last)+1)
	keys, values := make([]uint32, size), make([]V, size*cpus)
	out := make(map[uint32]V, len(ids))
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return nil, err
		}
		for i, id := range keys[:n] {
			if _, wanted := slices.BinarySearch(ids, id); wanted {
				out[id] = sum(values[i*cpus : (i+1)*cpus])
			}
		}
		if end || n == 0 || keys[n-1] >= last {
			return out, nil
		}
	}
}
