package health

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"time"
)

const (
	// Parallel is how many probes are out at a time: of thousands of backends
	// that hang, no more hold a socket. Others wait for their turn, which is
	// late then, but their time is their own.
	Parallel = 256
	// ParallelExec is the same for commands, each of which is a process.
	ParallelExec = 16
	// jitter is by how much of an interval each probe may be early or late, so
	// that thousands that came at once do not stay together.
	jitter = 0.1
)

// A Target says how a backend is probed.
type Target struct {
	Probe Probe
	Rules Rules
	// Known is what is known of it if it is not probed yet.
	Known State
}

// A Checker probes backends. Its methods may be called at the same time.
type Checker struct {
	slots, execSlots chan struct{}
	more             chan struct{}
	ctx              context.Context // of all probes
	stop             context.CancelFunc
	running          sync.WaitGroup

	mu      sync.Mutex
	watches map[Backend]*watch
	boards  map[boardKey]*board
	changes []Change
}

// watch is the probing of one backend.
type watch struct {
	*entry
	target Target
	stop   context.CancelFunc
}

type boardKey struct {
	service, version string
	v4               bool
}

func keyOf(b Backend) boardKey { return boardKey{b.Service, b.Version, b.Addr.Addr().Unmap().Is4()} }

// New returns a Checker that probes nothing. Close it when it is over.
func New() *Checker {
	ctx, stop := context.WithCancel(context.Background())
	return &Checker{
		ctx: ctx, stop: stop,
		slots: make(chan struct{}, Parallel), execSlots: make(chan struct{}, ParallelExec),
		more:    make(chan struct{}, 1),
		watches: map[Backend]*watch{}, boards: map[boardKey]*board{},
	}
}

// Follow makes the Checker probe the targets and nothing else. What is probed already keeps its standing; where only the rules or the probe
// are others, its row begins anew.
func (c *Checker) Follow(targets map[Backend]Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b, w := range c.watches {
		if _, ok := targets[b]; !ok {
			w.stop()
			delete(c.watches, b)
			c.drop(w.entry)
		}
	}
	for b, t := range targets {
		old := c.watches[b]
		if old != nil {
			t.Known = old.target.Known
			if reflect.DeepEqual(old.target, t) {
				continue
			}
			old.stop()
		}
		c.begin(b, t, old)
	}
}

// begin starts to probe a backend; old is its watch so far. mu is held.
func (c *Checker) begin(b Backend, t Target, old *watch) {
	w := &watch{target: t}
	if old != nil {
		w.entry = old.entry
		w.standing.Row = 0
	} else {
		w.entry = &entry{backend: b, standing: Standing{State: t.Known}, report: Report{State: t.Known}}
		key := keyOf(b)
		if c.boards[key] == nil {
			c.boards[key] = &board{}
		}
		c.boards[key].entries = append(c.boards[key].entries, w.entry)
	}
	ctx, stop := context.WithCancel(c.ctx)
	w.stop = stop
	c.watches[b] = w
	first := time.NewTimer(w.first())
	c.running.Go(func() { c.run(ctx, w, first) })
}

// drop takes an entry from its board. Others may have waited for it. mu is
// held.
func (c *Checker) drop(e *entry) {
	key := keyOf(e.backend)
	on := c.boards[key]
	on.entries = slices.DeleteFunc(on.entries, func(o *entry) bool { return o == e })
	if len(on.entries) == 0 {
		delete(c.boards, key)
	}
	c.changes = slices.DeleteFunc(c.changes, func(ch Change) bool { return ch.Backend == e.backend })
	c.say(on.settle())
}

// say adds changes to those that Take returns. mu is held.
func (c *Checker) say(changes []Change) {
	if len(changes) == 0 {
		return
	}
	c.changes = append(c.changes, changes...)
	select {
	case c.more <- struct{}{}:
	default: // it is said already
	}
}

// run probes a backend, at first when next says, until ctx ends.
func (c *Checker) run(ctx context.Context, w *watch, next *time.Timer) {
	defer next.Stop()
	slots := c.slots
	if _, ok := w.target.Probe.(Exec); ok {
		slots = c.execSlots
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		start := time.Now()
		err := ask(ctx, w.target, w.backend)
		<-slots
		if ctx.Err() != nil {
			return // that is why it failed
		}
		state := c.hear(w, err, start)
		next.Reset(spread(w.target.Rules.interval(state)) - time.Since(start))
	}
}

// first is how long the first probe waits. What is new is asked at once. mu is
// held.
func (w *watch) first() time.Duration {
	if w.standing.State == Starting {
		return 0
	}
	return rand.N(w.target.Rules.Interval)
}

// spread returns an interval that is a little longer or shorter.
func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + jitter*(2*rand.Float64()-1)))
}

// ask makes one probe and returns what is wrong, "" if nothing is.
func ask(ctx context.Context, t Target, b Backend) string {
	ctx, end := context.WithTimeout(ctx, t.Rules.Timeout)
	defer end()
	err := t.Probe.Ask(ctx, b)
	if err == nil {
		return ""
	}
	return reason(ctx, err)
}

// hear takes in a result and returns where the backend stands now.
func (c *Checker) hear(w *watch, err string, start time.Time) State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watches[w.backend] != w {
		return w.standing.State // it was stopped meanwhile
	}
	now := time.Now()
	first := w.report.At.IsZero()
	on := c.boards[keyOf(w.backend)]
	// A first result may be what others wait for.
	if w.entry.hear(err, now, now.Sub(start), w.target.Rules) || first || on.waiting() {
		c.say(on.settle())
	}
	return w.standing.State
}

func (b *board) waiting() bool {
	return slices.ContainsFunc(b.entries, func(e *entry) bool { return e.held })
}

// Changed tells that there is something to Take.
func (c *Checker) Changed() <-chan struct{} { return c.more }

// Take returns the changes since it was called last, in their order.
func (c *Checker) Take() []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.changes
	c.changes = nil
	return out
}

// Report returns what is known of a backend; false: it is not probed.
func (c *Checker) Report(b Backend) (Report, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, ok := c.watches[b]
	if !ok {
		return Report{}, false
	}
	return w.report, true
}

// Close ends all probes, and waits for them.
func (c *Checker) Close() {
	c.stop()
	c.running.Wait()
}
