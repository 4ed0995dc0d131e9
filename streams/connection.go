package streams

import (
	"container/list"
	"encoding/binary"
	"math"
	"unsafe"
)

// connection is what is known of one.
type connection struct {
	d       *Decoder
	of      Conn
	place   *list.Element // in Decoder.recent
	serials [2]uint32     // of the pieces to come
	lost    [2]bool       // of a direction nothing can be read any more
	answers reader        // the server's frames
	waiting requests
	last    uint32 // highest number of a stream that was asked
	// served is the highest stream that the server will answer after a GOAWAY;
	// awayCode is its reason.
	served   uint32
	awayCode uint32
	table    table
	block    []byte // header block from earlier frames
}

// renew makes c new. Small buffers are kept.
func (c *connection) renew() {
	c.serials, c.lost = [2]uint32{}, [2]bool{}
	c.last, c.served, c.awayCode = 0, math.MaxUint32, codeNone
	c.answers = reader{kept: emptied(c.answers.kept)}
	if cap(c.waiting.list) > keptRequests {
		c.waiting.list = nil
	}
	c.waiting = requests{list: c.waiting.list[:0]}
	c.block = emptied(c.block)
	c.table.begin(c.d.limits.TableBytes, c.d.emit)
}

func (c *connection) take(p *Piece) {
	if p.Serial != c.serials[p.Way] && !c.lost[p.Way] {
		c.d.stats.Gaps++
		c.gap(p.Way, p.NS)
	}
	c.serials[p.Way] = p.Serial + 1
	if p.Upgraded {
		c.asked(1, p.NS)
	}
	c.read(p)
	if p.Lost && !c.lost[p.Way] {
		c.d.stats.Gaps++
		c.lose(p.Way, p.NS)
	}
	if p.End {
		c.end(p.Way, p.NS)
	}
}

// gap notes that pieces are missing. Each of the client's can be read without
// the one before, but what waits may have been given up.
func (c *connection) gap(way Way, ns uint64) {
	if way == ToServer {
		c.loseWaiting(ns)
	} else {
		c.lose(way, ns)
	}
}

// read reads a piece, if that can be done.
func (c *connection) read(p *Piece) {
	if c.lost[p.Way] {
		if c.lost == [2]bool{true, true} {
			c.d.stats.Dark++
		}
		return
	}
	var err error
	if p.Way == ToServer {
		err = c.readQuestion(p)
	} else {
		r := &c.answers
		r.data, r.ns = p.Data, p.NS
		err = c.readAnswers(r)
		r.data, r.payload = nil, nil
	}
	if err != nil {
		c.d.stats.Errors++
		c.d.stats.LastError = err
		c.lose(p.Way, p.NS)
	}
}

// readQuestion reads a head of the client's. A server's number is no request.
func (c *connection) readQuestion(p *Piece) error {
	if len(p.Data) == 0 {
		return nil // it says something else
	}
	if len(p.Data) != frameHead {
		return errSize
	}
	switch f := headOf(p.Data); {
	case f.stream%2 == 0:
	case f.kind == frameHeaders:
		c.asked(f.stream, p.NS)
	case f.kind == frameReset:
		c.abort(f.stream, p.NS)
	}
	return nil
}

func (c *connection) readAnswers(r *reader) error {
	for r.scan(c.d.limits.HeaderBytes) {
		var err error
		switch r.frame.kind {
		case frameHeaders, framePush, frameContinuation:
			err = c.readFields(r)
		case frameReset:
			c.reset(r.frame.stream, binary.BigEndian.Uint32(r.payload), r.frame.ns)
		case frameGoAway:
			c.away(binary.BigEndian.Uint32(r.payload)&^(1<<31), binary.BigEndian.Uint32(r.payload[4:]), r.frame.ns)
		}
		if err != nil {
			return err
		}
	}
	return r.err
}

// readFields takes a frame's part of a header block, and reads the block with
// its last. All are read, also those that answer nothing: each may change the
// table.
func (c *connection) readFields(r *reader) error {
	part, err := r.fields()
	if err != nil {
		return err
	}
	if len(c.block)+len(part) > c.d.limits.HeaderBytes {
		return errLong
	}
	if r.open {
		c.block = append(c.block, part...)
		return nil
	}
	// The decoder keeps the address of what it read last. That must not be a
	// piece, which it would keep alive.
	block := append(append(c.d.block[:0], c.block...), part...)
	c.block = emptied(c.block)
	c.d.response = response{}
	if err := c.table.read(block); err != nil {
		return err
	}
	if r.opener.kind == frameHeaders {
		c.answer(r.opener, &c.d.response)
	}
	return nil
}

// asked notes a request. A number that is not above all before it is that of a
// request's trailers (sections 5.1.1 and 8.1).
func (c *connection) asked(id uint32, ns uint64) {
	if id <= c.last {
		return
	}
	c.last = id
	switch {
	case c.lost[ToClient]:
		c.tellLost(ns, ns)
	case id > c.served: // it crossed the GOAWAY (section 6.8)
		c.tell(Answer{Outcome: unserved(c.awayCode), GRPC: NoGRPC, BeganNS: ns, EndedNS: ns})
	case c.waiting.open >= c.d.limits.StreamsPerConn:
		c.d.stats.Overfull++
		c.tellLost(ns, ns)
	default:
		c.waiting.add(id, ns)
	}
}

// abort notes that a client wants no answer any more: nobody's failure.
func (c *connection) abort(id uint32, ns uint64) {
	if r := c.waiting.find(id); r != nil {
		c.leave(r, Aborted, ns)
	}
}

// answer notes a server's HEADERS: an interim response, a final one, or trailers
// (section 8.1).
func (c *connection) answer(f frame, h *response) {
	r := c.waiting.find(f.stream)
	switch {
	case r == nil:
		c.unasked(f, h)
	case r.is == headed || !h.valid():
		if r.is == headed && h.hasCode {
			c.settle(r, Answer{Status: int(r.status), GRPC: h.code, EndedNS: r.headedNS})
		} else {
			c.leave(r, Failed, f.ns) // no client can make use of that
		}
	case h.interim() && f.has(flagEndStream):
		c.leave(r, Failed, f.ns)
	case h.interim():
	case !h.grpc:
		c.settle(r, Answer{Status: h.status, GRPC: NoGRPC, EndedNS: f.ns})
	case !f.has(flagEndStream):
		r.is, r.headedNS, r.status = headed, f.ns, uint16(h.status)
	case h.hasCode: // trailers only
		c.settle(r, Answer{Status: h.status, GRPC: h.code, EndedNS: f.ns})
	default:
		r.is, r.headedNS, r.status = headed, f.ns, uint16(h.status)
		c.leave(r, Failed, f.ns)
	}
}

// unasked notes a server's HEADERS on a stream where nobody waits: trailers, a
// pushed response, one to a request that was lost or given up; or one to a
// request that we did not see, of which nobody else will tell.
func (c *connection) unasked(f frame, h *response) {
	if f.stream%2 == 1 && f.stream > c.last && h.valid() && !h.interim() {
		c.tellLost(0, f.ns)
	}
}

// reset notes a server's RST_STREAM.
func (c *connection) reset(id, code uint32, ns uint64) {
	r := c.waiting.find(id)
	if r != nil {
		c.leave(r, unanswered(code), ns)
	} else if id <= c.last && unserved(code) == Failed {
		c.d.stats.CutShort++
	}
}

// away notes a GOAWAY: streams above last were not served, nor will they be. The
// others may still be answered (section 6.8).
func (c *connection) away(last, code uint32, ns uint64) {
	c.served = min(c.served, last)
	c.awayCode = code
	c.waiting.above(last, func(r *request) { c.leave(r, unserved(code), ns) })
}

// end notes that the connection is over, and forgets it.
func (c *connection) end(by Way, ns uint64) {
	is := Failed
	if by == ToServer {
		is = Aborted
	} else if unserved(c.awayCode) == Faulted {
		is = Faulted
	}
	c.waiting.above(0, func(r *request) { c.leave(r, is, ns) })
	c.d.forget(c)
}

// lose gives a direction up, and with it what waits. The memory for it goes.
func (c *connection) lose(way Way, ns uint64) {
	c.lost[way] = true
	if way == ToClient {
		c.answers = reader{}
		c.table = table{}
		c.block = nil
	}
	c.loseWaiting(ns)
}

func (c *connection) loseWaiting(ns uint64) {
	c.waiting.above(0, func(r *request) { c.leave(r, Lost, ns) })
}

// leave settles a request that has no answer. A call that began to have one, and
// whose server failed it, says so much.
func (c *connection) leave(r *request, is Outcome, ns uint64) {
	a := Answer{Outcome: is, GRPC: NoGRPC, EndedNS: ns}
	if r.is == headed && is == Failed {
		a.Status, a.GRPC, a.EndedNS = int(r.status), grpcUnknown, r.headedNS
	}
	c.settle(r, a)
}

func (c *connection) settle(r *request, a Answer) {
	a.BeganNS = r.beganNS
	c.waiting.settle(r)
	c.tell(a)
}

func (c *connection) tellLost(beganNS, endedNS uint64) {
	c.tell(Answer{Outcome: Lost, GRPC: NoGRPC, BeganNS: beganNS, EndedNS: endedNS})
}

func (c *connection) tell(a Answer) {
	a.Conn = c.of
	c.d.stats.Answers[a.Outcome]++
	c.d.answers = append(c.d.answers, a)
}

// bytes is what c takes, in all.
func (c *connection) bytes() uint64 {
	n := uint64(unsafe.Sizeof(*c)) + uint64(unsafe.Sizeof(list.Element{})) + c.waiting.bytes()
	return n + uint64(cap(c.answers.kept)) + uint64(cap(c.block)) + c.table.bytes()
}
