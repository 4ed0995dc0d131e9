package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// A Lease tells until when a weight word's weights count: a deadline on the
// clock of BootNow, and above it what the kernel did when it was over. Zero is a
// lease without an end.
type Lease uint64

// The bits that the kernel sets (bpf/types.h).
const (
	leaseTrying  = Lease(1) << 61
	leaseTripped = Lease(1) << 62
	leaseExpired = Lease(1) << 63
)

// Deadline returns until when the weights count, in nanoseconds of boot time; 0
// where there is no end.
func (l Lease) Deadline() int64 { return int64(l &^ (leaseTrying | leaseTripped | leaseExpired)) }

// Expired reports whether nobody renewed the lease in time.
func (l Lease) Expired() bool { return l&leaseExpired != 0 }

// Tripped reports whether the breaker took the word back. While it tries the
// version again it still has.
func (l Lease) Tripped() bool { return l&(leaseTripped|leaseTrying) != 0 }

// Trying reports whether the breaker lets a trickle through, to see.
func (l Lease) Trying() bool { return l&leaseTrying != 0 }

// Over reports whether the kernel has taken the word back, for either reason. It
// stays so until the release ends.
func (l Lease) Over() bool { return l.Expired() || l.Tripped() }

var (
	// ErrLeaseOver says that the kernel has taken a word back, or is about to:
	// its weights are zero, and the release must be judged anew.
	ErrLeaseOver = errors.New("the lease is over, stable has all connections")
	// ErrLeaseChanged says that a lease is not what the caller takes it for.
	ErrLeaseChanged = errors.New("somebody else changed the lease")
)

// Leases are the leases of the weight words, shared with the kernel.
type Leases struct{ words *WordArray[Lease] }

// NewLeases maps m (the leases map) into memory; it does not own m.
func NewLeases(m *ebpf.Map) (*Leases, error) {
	words, err := NewWordArray[Lease](m)
	if err != nil {
		return nil, err
	}
	return &Leases{words}, nil
}

// Load returns the lease of a word.
func (l *Leases) Load(word uint32) Lease { return l.words.Load(word) }

// Set gives a word another lease whatever it has now: with a deadline in
// nanoseconds of boot time, or 0 for none. Only for a word with zero weights.
func (l *Leases) Set(word uint32, deadline int64) { l.words.Store(word, Lease(deadline)) }

// Renew moves the deadline of a lease on and returns the new lease. It waits for
// nothing. Errors: ErrLeaseOver where the old deadline is past, or the kernel
// has taken the word back, and ErrLeaseChanged where the lease is not `old`; then
// nothing is changed. A caller that is stopped in the middle and wakes up later
// is refused too, since the kernel has latched the end by then.
func (l *Leases) Renew(word uint32, old Lease, deadline int64) (Lease, error) {
	if old.Over() {
		return old, ErrLeaseOver
	}
	if d := old.Deadline(); d != 0 && d <= BootNow() {
		return old, fmt.Errorf("%w since %v", ErrLeaseOver, time.Duration(BootNow()-d))
	}
	renewed := Lease(deadline)
	if l.words.Swap(word, old, renewed) {
		return renewed, nil
	}
	if now := l.Load(word); now.Over() {
		return now, ErrLeaseOver
	} else {
		return now, ErrLeaseChanged
	}
}

// Close gives the memory back. No other method may be called after it.
func (l *Leases) Close() error { return l.words.Close() }
