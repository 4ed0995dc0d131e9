package streams

import (
	"container/list"
	"unsafe"

	"golang.org/x/net/http2/hpack"
)

// keptRequests is how many requests a connection that is over may have had room
// for, if that is to be kept for the next one.
const keptRequests = 64

// Decoder reads the pieces of many connections. It is for one goroutine at a
// time.
type Decoder struct {
	limits Limits
	conns  map[uint32]*connection // by slot
	recent list.List              // of them, the last that spoke first
	spare  []*connection          // those that are over, for their memory
	stats  Stats

	// What the piece in hand needs, for all connections.
	answers  []Answer
	response response
	block    []byte
	emit     func(hpack.HeaderField) // into response
}

// New makes a Decoder that keeps to the limits.
func New(limits Limits) *Decoder {
	d := &Decoder{limits: limits.orDefault(), conns: map[uint32]*connection{}}
	d.block = make([]byte, 0, d.limits.HeaderBytes)
	d.emit = func(f hpack.HeaderField) { d.response.field(f) }
	return d
}

// Feed takes the next piece and returns the requests that it ended, which may be
// of other connections too: of those that had to give way. The answers are good
// until the next Feed.
func (d *Decoder) Feed(p Piece) []Answer {
	d.stats.Pieces++
	d.answers = d.answers[:0]
	if p.Way > ToClient {
		d.stats.Errors++
		return nil
	}
	if c := d.connection(p.Conn, p.NS); c != nil {
		c.take(&p)
	}
	return d.answers
}

// connection returns the one that a piece belongs to, nil where that is gone.
func (d *Decoder) connection(of Conn, ns uint64) *connection {
	c := d.conns[of.Slot]
	if c != nil {
		if c.of == of {
			d.recent.MoveToFront(c.place)
			return c
		}
		if of.OpenedNS < c.of.OpenedNS {
			d.stats.Stale++
			return nil
		}
		d.drop(c, ns) // its end was not told
	}
	if len(d.conns) >= d.limits.Conns {
		d.stats.Evicted++
		d.drop(d.recent.Back().Value.(*connection), ns)
	}
	if n := len(d.spare); n > 0 {
		c = d.spare[n-1]
		d.spare = d.spare[:n-1]
	} else {
		c = &connection{d: d}
		c.renew()
	}
	c.of = of
	c.place = d.recent.PushFront(c)
	d.conns[of.Slot] = c
	return c
}

// drop forgets a connection of which the end was not seen.
func (d *Decoder) drop(c *connection, ns uint64) {
	c.loseWaiting(ns)
	d.forget(c)
}

// State is what else is known of a connection.
type State uint8

const (
	Open State = iota
	Over
	// Left: the client closed it first, so it waits for nothing any more.
	Left
)

// Sweep forgets the connections that are over, and returns the requests that
// waited on them: lost, unless their client has left. It is for those whose End
// did not come; ns is now.
func (d *Decoder) Sweep(state func(Conn) State, ns uint64) []Answer {
	d.answers = d.answers[:0]
	for _, c := range d.conns {
		switch state(c.of) {
		case Over:
			d.drop(c, ns)
		case Left:
			c.end(ToServer, ns)
		}
	}
	return d.answers
}

// Waits returns those that began before a time, in no order.
func (d *Decoder) Waits(before uint64) (waits []Wait) {
	for _, c := range d.conns {
		if ns := c.waiting.oldestNS(); ns > 0 && ns < before {
			waits = append(waits, Wait{Conn: c.of, BeganNS: ns, Heard: c.serials})
		}
	}
	return waits
}

func (d *Decoder) forget(c *connection) {
	delete(d.conns, c.of.Slot)
	d.recent.Remove(c.place)
	c.renew()
	d.spare = append(d.spare, c)
}

// Stats says what was done and what is held. It walks over all connections.
func (d *Decoder) Stats() Stats {
	s := d.stats
	s.Conns = len(d.conns)
	s.Bytes = uint64(cap(d.block)) + uint64(cap(d.answers))*uint64(unsafe.Sizeof(Answer{})) +
		uint64(cap(d.spare))*8 + 64*uint64(s.Conns)
	for _, c := range d.conns {
		s.Waiting += c.waiting.open
		s.Bytes += c.bytes()
	}
	for _, c := range d.spare {
		s.Bytes += c.bytes()
	}
	return s
}
