package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// An EventKind says what the kernel did by itself.
type EventKind uint32

const (
	// LeaseExpired: a lease was not renewed in time.
	LeaseExpired = EventKind(objEventKindEVENT_EXPIRED)
	// BreakerTripped: a breaker opened.
	BreakerTripped = EventKind(objEventKindEVENT_TRIPPED)
)

// An Event tells that the kernel took a weight word back.
type Event struct {
	Kind EventKind
	Word uint32
	// When it happened on the clocks of BootNow and Now. Flows that were
	// opened later were given to stable.
	Boot, Monotonic int64
}

// Events are what the kernel tells. Whoever is not there to read finds the same
// in the leases and breakers.
type Events struct{ r *ringbuf.Reader }

// NewEvents reads the events map; it does not own m. There may be one reader.
func NewEvents(m *ebpf.Map) (*Events, error) {
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("open the ring buffer of events: %w", err)
	}
	return &Events{r}, nil
}

// Read waits for the next event, those from before the call too. After Close it
// fails with ringbuf.ErrClosed.
func (e *Events) Read() (Event, error) {
	record, err := e.r.Read()
	if err != nil {
		return Event{}, fmt.Errorf("read an event: %w", err)
	}
	var raw objEvent
	if _, err := binary.Decode(record.RawSample, binary.NativeEndian, &raw); err != nil {
		return Event{}, fmt.Errorf("read an event of %d bytes: %w", len(record.RawSample), err)
	}
	return Event{EventKind(raw.Kind), raw.Word, int64(raw.BootNs), int64(raw.MonotonicNs)}, nil
}

// Close ends a Read that waits, and gives the memory back.
func (e *Events) Close() error { return e.r.Close() }
