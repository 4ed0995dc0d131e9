package traffic

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of load.
const (
	KeepAlive = "keepalive" // requests over connections that stay
	Connect   = "connect"   // a connection for each request, several at a time
	Get       = "get"       // the same, one after the other, timed
	Stream    = "stream"    // one connection that receives all the time
)

// Order says what a client shall do.
type Order struct {
	Kind  string
	To    netip.AddrPort
	Warm  time.Duration // before what counts
	For   time.Duration
	Conns int  // at a time
	Log   bool // Connect: note every connection
}

// Sample is what a client saw.
type Sample struct {
	Seconds float64
	Count   uint64  // requests or connections that were answered
	Bytes   uint64  // received, of a stream
	Failed  uint64  // connections that were not answered
	P50     float64 // Get: microseconds from connect to the answer
	P99     float64
	Last    string // the last failure
	By      map[string]uint64
	Log     []Entry `json:",omitempty"`
}

// Entry is one connection; the times are CLOCK_MONOTONIC nanoseconds.
type Entry struct {
	Start int64  `json:"s"` // before the socket is connected
	End   int64  `json:"e"` // when the answer was there
	By    string `json:"b"` // the server's name
}

// Run carries out an order. It writes a line to ready when it is warm.
func Run(o Order, ready io.Writer) (Sample, error) {
	runtime.LockOSThread()
	c, err := newClient(o, ready)
	if err != nil {
		return Sample{}, err
	}
	run := map[string]func() error{KeepAlive: c.keepAlive, Connect: c.connect, Get: c.get, Stream: c.stream}[o.Kind]
	if run == nil {
		return Sample{}, fmt.Errorf("%q is no kind of load", o.Kind)
	}
	if err := run(); err != nil {
		return Sample{}, fmt.Errorf("%s load on %v: %w", o.Kind, o.To, err)
	}
	return c.finish()
}

type client struct {
	Order
	to     *address
	epoll  int
	ready  io.Writer
	answer int // its length
	in     []byte
	ask    []byte

	begin time.Time
	clock int64 // CLOCK_MONOTONIC at begin
	warm  bool
	from  time.Time // when it was warm
	took  time.Duration

	sample  Sample
	byFirst [256]uint64 // answers by the first letter of the server's name
	timings []time.Duration
	log     []entry
}

type entry struct {
	start, end time.Duration // since begin
	by         byte
}

func newClient(o Order, ready io.Writer) (*client, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	c := &client{
		Order: o, to: newAddress(o.To), epoll: epoll, ready: ready,
		answer: len(response("stable")), in: make([]byte, 256<<10), ask: []byte(askOnce),
		timings: make([]time.Duration, 0, 1<<20),
	}
	if o.Log {
		c.log = make([]entry, 0, 1<<20)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return nil, fmt.Errorf("read the monotonic clock: %w", err)
	}
	c.begin, c.clock = time.Now(), now.Nano()
	return c, nil
}

// going notes the end of the warm-up and tells whether there is time left.
// Call it after each piece of work.
func (c *client) going() bool {
	since := time.Since(c.begin)
	if !c.warm && since >= c.Warm {
		c.warm, c.from = true, time.Now()
		c.sample, c.byFirst, c.timings, c.log = Sample{}, [256]uint64{}, c.timings[:0], c.log[:0]
		fmt.Fprintln(c.ready, "warm") // nobody waits for it in vain: the result comes in any case
	}
	if since < c.Warm+c.For {
		return true
	}
	c.took = time.Since(c.from)
	return false
}

// answered counts one answer that has been read completely.
func (c *client) answered() {
	c.sample.Count++
	c.byFirst[c.in[c.answer-NameLength]]++
}

func (c *client) fail(step string, errno unix.Errno) {
	c.sample.Failed++
	c.sample.Last = fmt.Sprintf("%s: %v", step, errno)
}

func (c *client) finish() (Sample, error) {
	s := c.sample
	s.Seconds = c.took.Seconds()
	s.By = map[string]uint64{}
	names := map[byte]string{'s': "stable", 'c': "canary"}
	for first, n := range c.byFirst {
		if n == 0 {
			continue
		}
		name, ok := names[byte(first)]
		if !ok {
			return s, fmt.Errorf("%v answered with something else than a name", c.To)
		}
		s.By[name] = n
	}
	if len(c.timings) > 0 {
		slices.Sort(c.timings)
		s.P50, s.P99 = micros(quantile(c.timings, 50)), micros(quantile(c.timings, 99))
	}
	for _, e := range c.log {
		s.Log = append(s.Log, Entry{c.clock + e.start.Nanoseconds(), c.clock + e.end.Nanoseconds(), names[e.by]})
	}
	if s.Count == 0 && s.Bytes == 0 {
		return s, errors.Join(fmt.Errorf("%v answered nothing", c.To), errors.New(s.Last))
	}
	return s, nil
}

// quantile reads a percentile of sorted durations.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
