// Package history keeps the states of releases and every decision about them
// over restarts. Nothing that steers waits for it: a Save only takes note, and
// a goroutine writes. What cannot be written stays in memory and is tried again.
package history

import (
	"fmt"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"siskin.dev/siskin/rollout"
)

// Options say how a Store keeps things.
type Options struct {
	Decisions int // kept of one release; default 1,000
	Finished  int // releases that are over whose decisions are kept; default 100
	// Retry is how long to wait after a write that failed; default 1 s.
	Retry time.Duration
	// Loud is told what an operator must know: one word, and a sentence that
	// says what to do. It must not call the Store.
	Loud func(warn bool, reason, message string)
	// Now is the time of day, for the names of files set aside; default time.Now.
	Now func() time.Time
}

// Reasons that Loud is given.
const (
	Damaged  = "HistoryDamaged"  // set aside; begun anew
	Failing  = "HistoryFailing"  // not written; kept in memory
	Recovers = "HistoryRecovers" // written again
)

// Store is a file of states and decisions. Its methods may be called from
// several goroutines.
type Store struct {
	path string
	o    Options

	mu     sync.Mutex // never held over a write
	states map[string]rollout.State
	dirty  map[string]bool               // states to be written, or removed
	queue  map[string][]rollout.Decision // decisions to be written
	lost   bool

	file    sync.Mutex // held over writes and reads of the file
	db      *bolt.DB   // nil: not open
	failing bool
	peeked  bool

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

// Open reads the file, or begins one. It does not fail: a file that is damaged
// is set aside, and one that cannot be used at all is tried again later, while
// everything is kept in memory; Loud is told of either.
func Open(path string, o Options) *Store {
	if o.Decisions <= 0 {
		o.Decisions = 1000
	}
	if o.Finished <= 0 {
		o.Finished = 100
	}
	if o.Retry <= 0 {
		o.Retry = time.Second
	}
	if o.Loud == nil {
		o.Loud = func(bool, string, string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{path: path, o: o, states: map[string]rollout.State{}, dirty: map[string]bool{}, queue: map[string][]rollout.Decision{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	s.report(s.write())
	go s.run()
	return s
}

// States are those of all releases that were saved and not forgotten.
func (s *Store) States() map[string]rollout.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]rollout.State, len(s.states))
	for name, state := range s.states {
		out[name] = state
	}
	return out
}

// Lost tells whether there was a history that could not be read. A release
// that States does not know may then have been rolled back before, and must
// not start by itself.
func (s *Store) Lost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Save takes note of a release's state and of the decisions that led to it. It
// waits for no disk.
func (s *Store) Save(release string, state rollout.State, decisions ...rollout.Decision) {
	s.mu.Lock()
	s.states[release], s.dirty[release] = state, true
	s.enqueue(release, decisions)
	s.mu.Unlock()
	s.wakeUp()
}

// enqueue adds decisions to those that wait, within bounds. mu is held.
func (s *Store) enqueue(release string, decisions []rollout.Decision) {
	if len(decisions) == 0 {
		return
	}
	all := append(s.queue[release], decisions...)
	s.queue[release] = all[max(0, len(all)-s.o.Decisions):]
}

// Forget drops the state of a release; its decisions stay, within bounds.
func (s *Store) Forget(release string) {
	s.mu.Lock()
	delete(s.states, release)
	s.dirty[release] = true
	s.mu.Unlock()
	s.wakeUp()
}

func (s *Store) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes what was noted, until Close.
func (s *Store) run() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		}
		for s.report(s.write()) != nil {
			select {
			case <-s.stop:
				return
			case <-time.After(s.o.Retry):
			}
		}
	}
}

// report tells when writing begins to fail, and when it works again.
func (s *Store) report(err error) error {
	s.file.Lock()
	was := s.failing
	s.failing = err != nil
	s.file.Unlock()
	switch {
	case err != nil && !was:
		s.o.Loud(true, Failing, fmt.Sprintf("the history of releases cannot be written and is kept in memory only; steering goes on: %v", err))
	case err == nil && was:
		s.o.Loud(false, Recovers, "the history of releases is written again")
	}
	return err
}

// Flush writes what was noted so far.
func (s *Store) Flush() error { return s.report(s.write()) }

// Close writes what was noted and closes the file.
func (s *Store) Close() error {
	close(s.stop)
	<-s.done
	err := s.report(s.write())
	s.file.Lock()
	defer s.file.Unlock()
	if s.db != nil {
		if e := s.db.Close(); err == nil {
			err = e
		}
		s.db = nil
	}
	return err
}

// Decisions returns the last ones of a release, oldest first, at most limit (0:
// all that are kept), also those that were not written yet.
func (s *Store) Decisions(release string, limit int) ([]rollout.Decision, error) {
	s.file.Lock()
	defer s.file.Unlock()
	var out []rollout.Decision
	var err error
	if s.db != nil {
		out, err = s.read(release, limit)
	}
	s.mu.Lock()
	out = append(out, s.queue[release]...)
	s.mu.Unlock()
	if limit > 0 {
		out = out[max(0, len(out)-limit):]
	}
	return slices.Clip(out), err
}

// noted is what one write takes along.
type noted struct {
	states map[string]*rollout.State // nil: to be removed
	queue  map[string][]rollout.Decision
}

// take moves what is to be written out of the Store.
func (s *Store) take() noted {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := noted{states: map[string]*rollout.State{}, queue: s.queue}
	for name := range s.dirty {
		n.states[name] = nil
		if state, ok := s.states[name]; ok {
			n.states[name] = &state
		}
	}
	s.dirty, s.queue = map[string]bool{}, map[string][]rollout.Decision{}
	return n
}

// putBack returns what was not written, before what came meanwhile.
func (s *Store) putBack(n noted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range n.states {
		s.dirty[name] = true
	}
	for name, old := range n.queue {
		newer := s.queue[name]
		s.queue[name] = nil
		s.enqueue(name, slices.Concat(old, newer))
	}
}

// active are the releases whose decisions must stay.
func (s *Store) active() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]bool{}
	for name, state := range s.states {
		if state.Phase.Active() {
			out[name] = true
		}
	}
	return out
}
