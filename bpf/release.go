package bpf

import (
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// An OutcomeKind says what a client met (enum outcome_kind).
type OutcomeKind uint8

const (
	// OutcomeError: the server failed: refused, timed out, reset before an
	// answer, unreachable.
	OutcomeError = OutcomeKind(objOutcomeKindOUTCOME_ERROR)
	// OutcomeSlow: an answer took longer than Watch.Slow, or one that is still
	// waited for has.
	OutcomeSlow = OutcomeKind(objOutcomeKindOUTCOME_SLOW)
	// OutcomeSeen is none: the client's first flow in the release, where its
	// version was chosen by weight and by nothing else.
	OutcomeSeen = OutcomeKind(objOutcomeKindOUTCOME_SEEN)
)

// cellsPerRoom and CellsPerRoom are the entries of the cells map that a release
// has, for one kind of outcome and for all.
const (
	cellsPerKind = 1 << (18 - 3)
	CellsPerRoom = 3 * cellsPerKind
)

// Outcome is a key of the outcomes map: what clients met, in the version slot
// and epoch of their flow. Step is when, Prev when they had met it last (0:
// never); the value is how many.
type Outcome = objOutcome

// A Watch is what the kernel watches while a release runs on a weight word.
type Watch struct {
	Version      uint8 // slot of the version under release, 1 to 4
	ByConnection bool  // what was randomised: connections, not clients
	Step         uint8 // from 1 on
	// Slow is how long an answer of stable and of the version may take; 0: it
	// is not watched.
	Slow [2]time.Duration
	// Limit is the breaker's level that trips, and Success what a success
	// takes out of its buckets (analysis.BreakerRule). A limit of 0: it is off.
	Limit, Success uint32
	// Retry is how long a breaker that has tripped waits before it tries the
	// version again by itself; 0: it never does.
	Retry time.Duration
	// Failures are the answers that count as errors.
	Failures Failures
	// Started is set by Begin, on the clock of Now: flows that were opened
	// before carry no evidence.
	Started int64
}

// A BreakerBucket is one of the two of a breaker, as the last error left it.
type BreakerBucket struct {
	Level  uint32
	Errors uint64 // of all clients, since the release began
}

// A Breaker is the state of a release's breaker. Once it has tripped it stays as
// it was then, unless Watch.Retry lets it try again.
type Breaker struct {
	Tripped         bool
	Closed          uint32 // how often it has closed again by itself
	Boot, Monotonic int64  // when, on the clocks of BootNow and Now; 0: not
	Stable, Version BreakerBucket
	Lost            uint64 // outcomes that found no room: the evidence is not whole
}

var (
	// ErrReleaseRuns says that a release runs on a weight word.
	ErrReleaseRuns = errors.New("a release runs on this weight word")
	// ErrNoRelease says that none does.
	ErrNoRelease = errors.New("no release runs on this weight word")
	// ErrNoRoom says that as many releases run as there is room for.
	ErrNoRoom = errors.New("no room for another release at a time")
)

// Releases are what the kernel watches, by weight word. Its methods are for one
// goroutine at a time, but for those that only read.
type Releases struct {
	words     []objRelease
	rooms     *WordArray[uint64]
	cells     []uint64
	memory    [][]byte
	outcomes  *MapOf[Outcome, uint64]
	successes *ebpf.Map
	breakers  *ebpf.Map
}

// NewReleases maps the kernel's maps of these names into memory: releases, rooms,
// cells, outcomes, successes, breakers. It does not own them.
func NewReleases(m func(name string) *ebpf.Map) (_ *Releases, err error) {
	r := &Releases{successes: m("successes"), breakers: m("breakers")}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.outcomes, err = NewMapOf[Outcome, uint64](m("outcomes")); err != nil {
		return nil, err
	}
	if r.rooms, err = NewWordArray[uint64](m("rooms")); err != nil {
		return nil, err
	}
	if r.words, err = mapped[objRelease](r, m("releases")); err != nil {
		return nil, err
	}
	if r.cells, err = mapped[uint64](r, m("cells")); err != nil {
		return nil, err
	}
	if n := uint32(len(r.cells)); n < r.rooms.Len()*CellsPerRoom {
		return nil, fmt.Errorf("map cells has %d entries for %d rooms: it was made by another build", n, r.rooms.Len())
	}
	return r, nil
}

// mapped returns the entries of an mmapable array, in its own memory.
func mapped[T any](r *Releases, m *ebpf.Map) ([]T, error) {
	var entry T
	if m.Type() != ebpf.Array || uintptr(m.ValueSize()) != unsafe.Sizeof(entry) {
		return nil, fmt.Errorf("map %s is no array of %d bytes each: it was made by another build", m, unsafe.Sizeof(entry))
	}
	n := int(m.MaxEntries())
	mem, err := unix.Mmap(m.FD(), 0, n*int(unsafe.Sizeof(entry)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", m, err)
	}
	r.memory = append(r.memory, mem)
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), n), nil
}

// Begin watches a word from now on. What was booked for an earlier release of
// the word is gone. Errors: ErrReleaseRuns, ErrNoRoom.
func (r *Releases) Begin(word uint32, w Watch) (Watch, error) {
	at := &r.words[word]
	if atomic.LoadUint64(&at.StartedNs) != 0 {
		return w, ErrReleaseRuns
	}
	room, err := r.vacant(word)
	if err != nil {
		return w, err
	}
	if err := r.clear(word, room); err != nil {
		return w, err
	}
	atomic.StoreUint32(&at.Room, room)
	atomic.StoreUint32(&at.Version, uint32(w.Version))
	atomic.StoreUint32(&at.ByConnection, 0)
	if w.ByConnection {
		atomic.StoreUint32(&at.ByConnection, 1)
	}
	r.SetStep(word, w.Step)
	r.SetSlow(word, w.Slow)
	r.SetBreaker(word, w.Limit, w.Success)
	r.SetFailures(word, w.Failures)
	atomic.StoreUint64(&at.RetryNs, uint64(w.Retry))
	w.Started = Now()
	r.rooms.Store(room, uint64(word)+1)
	atomic.StoreUint64(&at.StartedNs, uint64(w.Started))
	return w, nil
}

// vacant finds a room, one that was left half taken first.
func (r *Releases) vacant(word uint32) (uint32, error) {
	for _, holder := range []uint64{uint64(word) + 1, 0} {
		for room := range r.rooms.Len() {
			if r.rooms.Load(room) == holder {
				return room, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: %d run", ErrNoRoom, r.rooms.Len())
}

// clear forgets what was booked for the word and in the room. No program
// writes there.
func (r *Releases) clear(word, room uint32) error {
	clear(r.cells[room*CellsPerRoom:][:CellsPerRoom])
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count the CPUs: %w", err)
	}
	if err := r.successes.Put(room, make([]objSuccess, cpus)); err != nil {
		return fmt.Errorf("zero the successes of a release: %w", err)
	}
	if err := r.breakers.Put(room, objBreaker{}); err != nil {
		return fmt.Errorf("close the breaker: %w", err)
	}
	old, err := r.Outcomes(word)
	if err != nil {
		return err
	}
	for key := range old {
		if err := r.outcomes.Delete(key); err != nil {
			return fmt.Errorf("forget an outcome: %w", err)
		}
	}
	return nil
}

// SetStep says that the release has come to a step, from 1 on. Call it before
// the word has the step's weights.
func (r *Releases) SetStep(word uint32, step uint8) {
	atomic.StoreUint32(&r.words[word].Step, uint32(step))
}

// SetSlow says how long an answer of stable and of the version may take; 0: it
// is not watched.
func (r *Releases) SetSlow(word uint32, slow [2]time.Duration) {
	for side, d := range slow {
		atomic.StoreUint64(&r.words[word].SlowNs[side], uint64(d))
	}
}

// SetBreaker says at which level the breaker trips, and what a success takes out
// of its buckets. A limit of 0: it is off.
func (r *Releases) SetBreaker(word, limit, success uint32) {
	atomic.StoreUint32(&r.words[word].Limit, limit)
	atomic.StoreUint32(&r.words[word].Success, success)
}

// SetFailures says which answers count as errors.
func (r *Releases) SetFailures(word uint32, f Failures) {
	for i, bits := range f.status {
		atomic.StoreUint64(&r.words[word].Fails[i], bits)
	}
	atomic.StoreUint32(&r.words[word].FailsGrpc, f.grpc)
}

// End watches the word no more. It waits some milliseconds, until no program is
// still booking; what was booked can be read until the next Begin. Where no
// release runs nothing is done.
func (r *Releases) End(word uint32) error {
	at := &r.words[word]
	if atomic.LoadUint64(&at.StartedNs) == 0 {
		return nil
	}
	atomic.StoreUint64(&at.StartedNs, 0)
	atomic.StoreUint64(&at.RetryNs, 0)
	if err := Grace(); err != nil {
		return fmt.Errorf("wait for running programs: %w", err)
	}
	r.rooms.Store(at.Room, 0)
	return nil
}

// Load returns what is watched on a word. ErrNoRelease: nothing is.
func (r *Releases) Load(word uint32) (Watch, error) {
	at := &r.words[word]
	started := atomic.LoadUint64(&at.StartedNs)
	if started == 0 {
		return Watch{}, ErrNoRelease
	}
	w := Watch{
		Version: uint8(atomic.LoadUint32(&at.Version)), ByConnection: atomic.LoadUint32(&at.ByConnection) != 0,
		Step: uint8(atomic.LoadUint32(&at.Step)), Limit: atomic.LoadUint32(&at.Limit),
		Success: atomic.LoadUint32(&at.Success), Started: int64(started),
		Retry: time.Duration(atomic.LoadUint64(&at.RetryNs)),
	}
	for i := range w.Failures.status {
		w.Failures.status[i] = atomic.LoadUint64(&at.Fails[i])
	}
	w.Failures.grpc = atomic.LoadUint32(&at.FailsGrpc)
	for side := range w.Slow {
		w.Slow[side] = time.Duration(atomic.LoadUint64(&at.SlowNs[side]))
	}
	return w, nil
}

// Running returns the words under release.
func (r *Releases) Running() []uint32 {
	var out []uint32
	for room := range r.rooms.Len() {
		if holder := r.rooms.Load(room); holder != 0 && atomic.LoadUint64(&r.words[holder-1].StartedNs) != 0 {
			out = append(out, uint32(holder-1))
		}
	}
	return out
}

// Outcomes returns what was booked for a word.
func (r *Releases) Outcomes(word uint32) (map[Outcome]uint64, error) {
	all, err := r.outcomes.All()
	if err != nil {
		return nil, fmt.Errorf("read the outcomes: %w", err)
	}
	maps.DeleteFunc(all, func(o Outcome, _ uint64) bool { return o.Word != word })
	return all, nil
}

// Breaker returns the breaker of a word's release, all of it at one instant.
// ErrNoRelease: there is none.
func (r *Releases) Breaker(word uint32) (Breaker, error) {
	if atomic.LoadUint64(&r.words[word].StartedNs) == 0 {
		return Breaker{}, ErrNoRelease
	}
	room := atomic.LoadUint32(&r.words[word].Room)
	var b objBreaker
	if err := r.breakers.LookupWithFlags(room, &b, ebpf.LookupLock); err != nil {
		return Breaker{}, fmt.Errorf("read the breaker: %w", err)
	}
	return Breaker{
		Tripped: b.Tripped != 0, Closed: b.Closed, Boot: int64(b.BootNs), Monotonic: int64(b.MonotonicNs), Lost: b.Lost,
		Stable: BreakerBucket{b.Of[0].Level, b.Of[0].Count}, Version: BreakerBucket{b.Of[1].Level, b.Of[1].Count},
	}, nil
}

// Close gives the memory back. No other method may be called after it.
func (r *Releases) Close() error {
	var errs []error
	for _, mem := range r.memory {
		if err := unix.Munmap(mem); err != nil {
			errs = append(errs, fmt.Errorf("unmap releases: %w", err))
		}
	}
	if r.rooms != nil {
		errs = append(errs, r.rooms.Close())
	}
	r.memory, r.words, r.cells, r.rooms = nil, nil, nil, nil
	return errors.Join(errs...)
}
