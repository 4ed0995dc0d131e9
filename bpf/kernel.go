package bpf

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// batch is how many entries one system call reads or writes.
const batch = 4096

// A MapOf is a kernel map with typed entries: a hash, or an array, in which a
// zero value counts as absent. K and V must have the map's sizes and no
// implicit padding.
type MapOf[K, V comparable] struct {
	m       *ebpf.Map
	array   bool
	changes *Changes // counts what is written; nil: nobody needs to know
}

// NewMapOf returns m with typed entries; it does not own m. It fails where the
// sizes of K or V are not the map's.
func NewMapOf[K, V comparable](m *ebpf.Map) (*MapOf[K, V], error) {
	var k K
	var v V
	if uintptr(m.KeySize()) != unsafe.Sizeof(k) || uintptr(m.ValueSize()) != unsafe.Sizeof(v) {
		return nil, fmt.Errorf("map %s has keys of %d and values of %d bytes, this build expects %d and %d: it was made by another build",
			m, m.KeySize(), m.ValueSize(), unsafe.Sizeof(k), unsafe.Sizeof(v))
	}
	return &MapOf[K, V]{m: m, array: m.Type() == ebpf.Array}, nil
}

// Counted returns the map as one whose changes are counted in c.
func (t *MapOf[K, V]) Counted(c *Changes) *MapOf[K, V] {
	if t == nil {
		return nil
	}
	return &MapOf[K, V]{t.m, t.array, c}
}

// Put writes one entry. In a hash, readers see the old value or the new one;
// in an array, whose values are written in place, they may see a mixture of
// values larger than eight bytes.
func (t *MapOf[K, V]) Put(k K, v V) error {
	defer t.changes.count()
	return t.m.Update(&k, &v, ebpf.UpdateAny)
}

// Delete removes an entry of a hash, or zeroes one of an array. One that is
// absent is no error.
func (t *MapOf[K, V]) Delete(k K) error {
	if t.array {
		var zero V
		return t.Put(k, zero)
	}
	defer t.changes.count()
	if err := t.m.Delete(&k); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// All returns every entry; of an array, those that are not zero. What is
// written meanwhile may be missing.
func (t *MapOf[K, V]) All() (map[K]V, error) {
	out := map[K]V{}
	err := t.batches(batch, out)
	for size := 2 * batch; errors.Is(err, unix.ENOSPC); size *= 2 {
		// A bucket of the hash holds more than a batch.
		clear(out)
		err = t.batches(size, out)
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		clear(out)
		err = t.iterate(out)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (t *MapOf[K, V]) batches(size int, out map[K]V) error {
	size = min(size, int(t.m.MaxEntries()))
	keys, values := make([]K, size), make([]V, size)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := t.m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			t.keep(out, keys[i], values[i])
		}
		if err != nil {
			return nil
		}
	}
}

func (t *MapOf[K, V]) iterate(out map[K]V) error {
	var k K
	var v V
	it := t.m.Iterate()
	for it.Next(&k, &v) {
		t.keep(out, k, v)
	}
	return it.Err()
}

func (t *MapOf[K, V]) keep(out map[K]V, k K, v V) {
	var zero V
	if !t.array || v != zero {
		out[k] = v
	}
}

// WordArray is an mmapable array of 64-bit words, shared with the kernel.
type WordArray[W ~uint64] struct {
	mem   []byte
	words []uint64
}

// NewWordArray maps m into memory; it does not own m, and stays valid when m
// is closed. m must have been made with BPF_F_MMAPABLE.
func NewWordArray[W ~uint64](m *ebpf.Map) (*WordArray[W], error) {
	if m.Type() != ebpf.Array || m.ValueSize() != 8 {
		return nil, fmt.Errorf("map %s is no array of 64-bit words: it was made by another build", m)
	}
	n := int(m.MaxEntries())
	mem, err := unix.Mmap(m.FD(), 0, 8*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", m, err)
	}
	// The mapping begins at a page, so every word is aligned.
	return &WordArray[W]{mem: mem, words: unsafe.Slice((*uint64)(unsafe.Pointer(&mem[0])), n)}, nil
}

// Len returns the number of words.
func (a *WordArray[W]) Len() uint32 { return uint32(len(a.words)) }

// Load reads word i with one load. It panics if there is no such word.
func (a *WordArray[W]) Load(i uint32) W { return W(atomic.LoadUint64(&a.words[i])) }

// Store writes word i with one aligned store: a program that reads it later,
// on any CPU, sees all of it. It panics if there is no such word.
func (a *WordArray[W]) Store(i uint32, w W) { atomic.StoreUint64(&a.words[i], uint64(w)) }

// Swap writes word i where it still is old, and reports whether it was. The
// programs change words in the same way. It panics if there is no such word.
func (a *WordArray[W]) Swap(i uint32, old, w W) bool {
	return atomic.CompareAndSwapUint64(&a.words[i], uint64(old), uint64(w))
}

func (a *WordArray[W]) add(i uint32, n uint64) { atomic.AddUint64(&a.words[i], n) }

// Close gives the memory back. No other method may be called after it.
func (a *WordArray[W]) Close() error {
	mem := a.mem
	a.mem, a.words = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap words: %w", err)
	}
	return nil
}

// Changes is the counter in the changes map. Programs remember what they found
// in the frontends and endpoints maps until it moves (bpf/gate.h).
type Changes struct{ words *WordArray[uint64] }

// NewChanges returns the counter in m, moved on: whoever wrote before may have
// been interrupted before it counted. It does not own m.
func NewChanges(m *ebpf.Map) (*Changes, error) {
	words, err := NewWordArray[uint64](m)
	if err != nil {
		return nil, err
	}
	c := &Changes{words}
	c.count()
	return c, nil
}

func (c *Changes) count() {
	if c != nil {
		c.words.Store(0, c.words.Load(0)+1) // there is one writer
	}
}

// Close gives the counter's memory back. No map that is counted may be written
// after it.
func (c *Changes) Close() error { return c.words.Close() }

// MaglevArray is the flat array of all Maglev tables.
type MaglevArray struct{ m *ebpf.Map }

// NewMaglevArray returns m as the array of tables; it does not own m.
func NewMaglevArray(m *ebpf.Map) (*MaglevArray, error) {
	if m.Type() != ebpf.Array || m.ValueSize() != 4 {
		return nil, fmt.Errorf("map %s is no array of 32-bit ids: it was made by another build", m)
	}
	return &MaglevArray{m: m}, nil
}

// Fill writes ids to the entries from offset on. It is not atomic: fill only
// what no program reads.
func (a *MaglevArray) Fill(offset uint32, ids []uint32) error {
	keys := make([]uint32, 0, min(batch, len(ids)))
	for part := range slices.Chunk(ids, batch) {
		keys = keys[:len(part)]
		for i := range keys {
			keys[i] = offset + uint32(i)
		}
		if _, err := a.m.BatchUpdate(keys, part, nil); err != nil {
			return fmt.Errorf("write entries %d to %d: %w", offset, offset+uint32(len(part))-1, err)
		}
		offset += uint32(len(part))
	}
	return nil
}

// Read returns length entries from offset on.
func (a *MaglevArray) Read(offset, length uint32) ([]uint32, error) {
	// A batch lookup can begin only where another one ended.
	out := make([]uint32, length)
	for i := range out {
		key := offset + uint32(i)
		if err := a.m.Lookup(&key, &out[i]); err != nil {
			return nil, fmt.Errorf("read entry %d: %w", key, err)
		}
	}
	return out, nil
}

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of linux/membarrier.h.
const membarrierGlobal = 1

// Grace returns when no program run that began before the call is going on.
// It takes some milliseconds: MEMBARRIER_CMD_GLOBAL is synchronize_rcu where
// there is more than one CPU (kernel/sched/membarrier.c), and the programs run
// inside an RCU read section. With one CPU the caller itself is the proof: a
// network program is not preempted by a process.
func Grace() error {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		return fmt.Errorf("membarrier: %w (it needs CONFIG_MEMBARRIER, no nohz_full CPUs, and must not be blocked by seccomp)", errno)
	}
	return nil
}
