package bpf

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A Slots is a set of a service's version slots.
type Slots uint32

// NonStable is every version slot but that of stable, which is never cut off.
const NonStable = Slots(1<<Versions - 2)

// SlotsOf returns a set.
func SlotsOf(slots ...uint8) (s Slots) {
	for _, slot := range slots {
		s |= 1 << slot
	}
	return s
}

// Cutoffs end the open connections of versions that were taken back. They are
// kept by weight word and shared with the kernel, which goes on with them, and
// begins those that were armed, without anybody (bpf/cutoff.h).
type Cutoffs struct {
	mem     []byte
	cells   []Cutoff
	cutting *WordArray[uint64]
}

// NewCutoffs maps both maps into memory; it does not own them.
func NewCutoffs(cutoffs, cutting *ebpf.Map) (*Cutoffs, error) {
	const size = unsafe.Sizeof(Cutoff{})
	if cutoffs.Type() != ebpf.Array || uintptr(cutoffs.ValueSize()) != size {
		return nil, fmt.Errorf("map %s is no array of cutoffs: it was made by another build", cutoffs)
	}
	n := int(cutoffs.MaxEntries())
	mem, err := unix.Mmap(cutoffs.FD(), 0, int(size)*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", cutoffs, err)
	}
	c := &Cutoffs{mem: mem, cells: unsafe.Slice((*Cutoff)(unsafe.Pointer(&mem[0])), n)}
	if c.cutting, err = NewWordArray[uint64](cutting); err != nil {
		return nil, fmt.Errorf("%w (%w)", err, c.Close())
	}
	return c, nil
}

// Begin cuts off the flows of versions that are open now, from after on: with 0
// by their next packet, and else they are left alone until then. Call it when
// the word has no weights any more. Where a cutoff of the word is in force, its
// versions stay in force with the new ones. It returns the time that divides
// those that are meant from younger ones, on the clock of Now.
func (c *Cutoffs) Begin(word uint32, versions Slots, after time.Duration) int64 {
	versions &= NonStable
	now := Now()
	if versions == 0 {
		return now
	}
	cell := &c.cells[word]
	// Nobody is meant until all of it is written.
	atomic.StoreUint64(&cell.FromNs, math.MaxUint64)
	atomic.StoreUint64(&cell.OpenedNs, uint64(now))
	atomic.StoreUint64(&cell.Resets, 0)
	atomic.StoreUint64(&cell.Resteered, 0)
	atomic.StoreUint64(&cell.LastNs, 0)
	if atomic.OrUint32(&cell.Versions, uint32(versions)) == 0 {
		c.cutting.add(0, 1)
	}
	atomic.StoreUint64(&cell.FromNs, uint64(now)+uint64(max(0, after)))
	return now
}

// End lets go of what is left of a word's flows; what was cut stays so. With no
// cutoff in force packets cost what they cost before.
func (c *Cutoffs) End(word uint32) {
	if atomic.SwapUint32(&c.cells[word].Versions, 0) != 0 {
		c.cutting.add(0, ^uint64(0))
	}
}

// Arm says what the kernel does to the open flows when it takes the word back
// by itself: versions are cut off after a grace; none are by default.
func (c *Cutoffs) Arm(word uint32, versions Slots, grace time.Duration) {
	cell := &c.cells[word]
	atomic.StoreUint32(&cell.Armed, 0)
	atomic.StoreUint64(&cell.GraceNs, uint64(max(0, grace)))
	atomic.StoreUint32(&cell.Armed, uint32(versions&NonStable))
}

// Load returns what is known of a word's cutoff.
func (c *Cutoffs) Load(word uint32) Cutoff {
	cell := &c.cells[word]
	return Cutoff{
		FromNs:    atomic.LoadUint64(&cell.FromNs),
		OpenedNs:  atomic.LoadUint64(&cell.OpenedNs),
		Versions:  atomic.LoadUint32(&cell.Versions),
		Armed:     atomic.LoadUint32(&cell.Armed),
		GraceNs:   atomic.LoadUint64(&cell.GraceNs),
		Resets:    atomic.LoadUint64(&cell.Resets),
		Resteered: atomic.LoadUint64(&cell.Resteered),
		LastNs:    atomic.LoadUint64(&cell.LastNs),
	}
}

// InForce returns the words of which a cutoff is in force.
func (c *Cutoffs) InForce() []uint32 {
	if c.cutting.Load(0) == 0 {
		return nil
	}
	var out []uint32
	for word := range c.cells {
		if atomic.LoadUint32(&c.cells[word].Versions) != 0 {
			out = append(out, uint32(word))
		}
	}
	return out
}

// Close gives the memory back. No other method may be called after it.
func (c *Cutoffs) Close() error {
	mem := c.mem
	c.mem, c.cells = nil, nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap cutoffs: %w", err)
	}
	if c.cutting == nil {
		return nil
	}
	return c.cutting.Close()
}

// Means reports whether a cutoff in force is about a flow, from its time on.
func (c *objCutoff) Means(f Flow) bool {
	return c.Versions>>(f.Version&31)&1 != 0 && f.OpenedNs < c.OpenedNs
}

// Took returns how long after its begin the last flow was cut off; 0 where none
// was yet.
func (c *objCutoff) Took() time.Duration {
	if c.LastNs < c.OpenedNs {
		return 0
	}
	return time.Duration(c.LastNs - c.OpenedNs)
}
