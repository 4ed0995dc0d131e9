package streams

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sort"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A conversation is made by a real framer and a real encoder, at random, and
// knows what must be told of it.
type conversation struct {
	rng     *rand.Rand
	conn    Conn
	now     uint64
	sides   [2]*side
	turn    Way
	streams []*stream // that the server may still answer, oldest first
	next    uint32
	opened  uint32 // of them, the last that was handed over
	pieces  []Piece
	told    []told
	aborted []*stream
	late    []told // answers that came after the client had given up
}

// place is where in a direction something begins.
type place struct {
	way    Way
	offset int
}

type stream struct {
	id     uint32
	began  place
	headed *place // gRPC: where its response began
	status int
}

// told is an answer of which the times are still places.
type told struct {
	Answer
	began, ended place
}

// side is one direction.
type side struct {
	buf     bytes.Buffer // frames not yet handed over
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	cut     int // bytes handed over
	cuts    []cut
	serial  uint32
}

type cut struct {
	offset int
	ns     uint64
}

func newConversation(rng *rand.Rand, conn Conn) *conversation {
	c := &conversation{rng: rng, conn: conn, now: 1000, next: 1}
	for i := range c.sides {
		s := &side{}
		s.framer = http2.NewFramer(&s.buf, nil)
		s.framer.AllowIllegalWrites = true
		s.encoder = hpack.NewEncoder(&s.block)
		s.encoder.SetMaxDynamicTableSizeLimit(16384)
		c.sides[i] = s
	}
	return c
}

// converse says what steps make of it.
func (c *conversation) converse(steps int) {
	c.to(ToServer).framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 16384})
	if c.rng.IntN(4) == 0 {
		c.streams = append(c.streams, &stream{id: 1, began: place{ToServer, 0}})
		c.next = 3
	}
	c.to(ToClient).framer.WriteSettings()
	for range steps {
		c.step()
	}
	c.finish()
}

func (c *conversation) step() {
	if len(c.streams) == 0 || c.rng.IntN(3) == 0 {
		c.ask()
		return
	}
	s := c.streams[c.rng.IntN(len(c.streams))]
	switch c.rng.IntN(14) {
	case 0:
		c.noise(c.to(ToServer))
	case 1:
		c.noise(c.to(ToClient))
	case 2:
		c.push(s)
	case 3:
		c.resize()
	case 4:
		c.clientReset(s)
	case 5:
		c.serverReset(s)
	case 6:
		if s.headed == nil {
			c.headers(ToClient, s.id, false, statusIs(100+c.rng.IntN(4)))
		}
	case 7, 8, 9:
		c.grpc(s)
	default:
		c.plain(s)
	}
}

// to gives the word to one side: what the other one said came by before.
func (c *conversation) to(w Way) *side {
	if c.turn != w {
		c.flush(c.turn, true)
		c.turn = w
	} else if c.rng.IntN(3) == 0 {
		c.flush(w, false)
	}
	return c.sides[w]
}

// flush hands frames over: the server's cut anywhere, the client's heads.
func (c *conversation) flush(w Way, all bool) {
	s := c.sides[w]
	if w == ToServer {
		c.flushHeads(s, all)
		return
	}
	for s.buf.Len() > 0 {
		n := s.buf.Len()
		if c.rng.IntN(2) == 0 {
			n = min(n, c.rng.IntN(40))
		}
		c.now += 1 + c.rng.Uint64N(1000)
		p := Piece{Conn: c.conn, Way: w, Serial: s.serial, NS: c.now, Data: bytes.Clone(s.buf.Next(n))}
		s.serial++
		if n > 0 {
			s.cuts = append(s.cuts, cut{s.cut, c.now})
		}
		s.cut += n
		c.pieces = append(c.pieces, p)
		if !all && c.rng.IntN(2) == 0 {
			return
		}
	}
}

// flushHeads hands over those that begin a stream, which are no trailers, or end
// one.
func (c *conversation) flushHeads(s *side, all bool) {
	give := func(p Piece) {
		c.now += 1 + c.rng.Uint64N(1000)
		p.Conn, p.Way, p.Serial, p.NS = c.conn, ToServer, s.serial, c.now
		s.serial++
		s.cuts = append(s.cuts, cut{s.cut, c.now})
		c.pieces = append(c.pieces, p)
	}
	if s.serial == 0 && c.upgraded() {
		give(Piece{Upgraded: true})
	}
	for s.buf.Len() > 0 {
		f := headOf(s.buf.Bytes())
		data := bytes.Clone(s.buf.Next(frameHead + int(f.length)))
		if f.kind == frameReset || f.kind == frameHeaders && f.stream > c.opened {
			give(Piece{Data: data[:frameHead]})
		}
		if f.kind == frameHeaders {
			c.opened = max(c.opened, f.stream)
		}
		s.cut += len(data)
		if !all && c.rng.IntN(2) == 0 {
			return
		}
	}
}

func (c *conversation) here(w Way) place { return place{w, c.sides[w].cut + c.sides[w].buf.Len()} }

func (c *conversation) upgraded() bool { return c.next > 1 && c.sides[ToServer].cut == 0 && c.began1() }

func (c *conversation) began1() bool {
	return len(c.streams) > 0 && c.streams[0].id == 1 && c.streams[0].began.offset == 0
}

func statusIs(n int) hpack.HeaderField { return field(":status", fmt.Sprint(n)) }

func field(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }

// headers writes a block of fields, with all that may be around it.
func (c *conversation) headers(w Way, id uint32, end bool, fields ...hpack.HeaderField) place {
	s := c.to(w)
	at := c.here(w)
	block := c.encode(s, fields)
	p := http2.HeadersFrameParam{StreamID: id, EndStream: end}
	if c.rng.IntN(4) == 0 {
		p.PadLength = uint8(c.rng.IntN(256))
	}
	if c.rng.IntN(4) == 0 {
		p.Priority = http2.PriorityParam{StreamDep: c.rng.Uint32N(100), Weight: uint8(c.rng.Uint32()), Exclusive: true}
	}
	n := c.part(block)
	p.BlockFragment, p.EndHeaders = block[:n], n == len(block)
	s.framer.WriteHeaders(p)
	c.rest(s, id, block[n:])
	return at
}

func (c *conversation) part(block []byte) int {
	if c.rng.IntN(3) == 0 {
		return c.rng.IntN(len(block) + 1)
	}
	return len(block)
}

func (c *conversation) rest(s *side, id uint32, block []byte) {
	for len(block) > 0 {
		n := c.part(block)
		s.framer.WriteContinuation(id, n == len(block), block[:n])
		block = block[n:]
	}
}

func (c *conversation) encode(s *side, fields []hpack.HeaderField) []byte {
	s.block.Reset()
	for _, f := range fields {
		f.Sensitive = c.rng.IntN(5) == 0
		s.encoder.WriteField(f)
		for c.rng.IntN(3) == 0 {
			s.encoder.WriteField(hpack.HeaderField{
				Name: fmt.Sprintf("x-%d", c.rng.IntN(20)), Value: letters(c.rng), Sensitive: c.rng.IntN(3) == 0,
			})
		}
	}
	return bytes.Clone(s.block.Bytes())
}

func letters(rng *rand.Rand) string {
	b := make([]byte, rng.IntN(60))
	for i := range b {
		b[i] = byte(rng.IntN(256))
		if rng.IntN(4) > 0 {
			b[i] = 'a' + b[i]%26
		}
	}
	return string(b)
}

func (c *conversation) ask() {
	id := c.next
	c.next += 2 * (1 + c.rng.Uint32N(2))
	method := []string{"GET", "HEAD", "POST", "CONNECT"}[c.rng.IntN(4)]
	at := c.headers(ToServer, id, c.rng.IntN(2) == 0, field(":method", method), field(":path", "/"+letters(c.rng)))
	c.streams = append(c.streams, &stream{id: id, began: at})
	if c.rng.IntN(5) == 0 {
		c.headers(ToServer, id, true, field("x-trailer", letters(c.rng)))
	}
}

func (c *conversation) plain(s *stream) {
	if s.headed != nil {
		return
	}
	code := []int{200, 200, 204, 206, 302, 304, 400, 404, 429, 500, 502, 503, 599}[c.rng.IntN(13)]
	kind := []string{"text/html", "application/grpc-web+proto", "application/grpcfoo", "application/json"}[c.rng.IntN(4)]
	at := c.headers(ToClient, s.id, c.rng.IntN(2) == 0, statusIs(code), field("content-type", kind), field("grpc-status", "3"))
	c.settled(s, Answer{Status: code, GRPC: NoGRPC}, at)
	if c.rng.IntN(4) == 0 {
		c.headers(ToClient, s.id, true, field("grpc-status", "7"))
	}
}

func (c *conversation) grpc(s *stream) {
	code := c.rng.IntN(17)
	last := field("grpc-status", fmt.Sprint(code))
	kind := field("content-type", []string{"application/grpc", "application/grpc+proto", "Application/gRPC;x=y"}[c.rng.IntN(3)])
	switch {
	case s.headed != nil && c.rng.IntN(8) == 0:
		c.headers(ToClient, s.id, true, field("x-no", "status"))
		c.settled(s, Answer{Outcome: Failed, Status: s.status, GRPC: grpcUnknown}, *s.headed)
	case s.headed != nil:
		c.headers(ToClient, s.id, true, last, field("grpc-message", letters(c.rng)))
		c.settled(s, Answer{Status: s.status, GRPC: code}, *s.headed)
	case c.rng.IntN(3) == 0:
		at := c.headers(ToClient, s.id, true, statusIs(200), kind, last)
		c.settled(s, Answer{Status: 200, GRPC: code}, at)
	default:
		at := c.headers(ToClient, s.id, false, statusIs(200), kind)
		s.headed, s.status = &at, 200
	}
}

func (c *conversation) clientReset(s *stream) {
	side := c.to(ToServer)
	at := c.here(ToServer)
	side.framer.WriteRSTStream(s.id, http2.ErrCode(c.rng.Uint32N(16)))
	c.ended(s, Aborted, at)
	c.aborted = append(c.aborted, s)
	if c.rng.IntN(2) == 0 && s.headed == nil { // it had been sent already
		at := c.headers(ToClient, s.id, true, statusIs(200))
		c.late = append(c.late, told{Answer: Answer{Status: 200, GRPC: NoGRPC}, began: s.began, ended: at})
	}
}

func (c *conversation) serverReset(s *stream) {
	code := c.rng.Uint32N(16)
	side := c.to(ToClient)
	at := c.here(ToClient)
	side.framer.WriteRSTStream(s.id, http2.ErrCode(code))
	c.ended(s, unanswered(code), at)
}

// ended is a stream that the server ended without an answer.
func (c *conversation) ended(s *stream, is Outcome, at place) {
	if is == Failed && s.headed != nil {
		c.settled(s, Answer{Outcome: is, Status: s.status, GRPC: grpcUnknown}, *s.headed)
	} else {
		c.settled(s, Answer{Outcome: is, GRPC: NoGRPC}, at)
	}
}

func (c *conversation) push(s *stream) {
	side := c.to(ToClient)
	block := c.encode(side, []hpack.HeaderField{field(":path", "/pushed"), field(":method", "GET")})
	n := c.part(block)
	promised := 2 * (1 + c.rng.Uint32N(1000))
	side.framer.WritePushPromise(http2.PushPromiseParam{
		StreamID: s.id, PromiseID: promised, BlockFragment: block[:n], EndHeaders: n == len(block),
		PadLength: uint8(c.rng.IntN(20)),
	})
	c.rest(side, s.id, block[n:])
	c.headers(ToClient, promised, false, statusIs(500))
}

func (c *conversation) resize() {
	side := c.sides[ToClient]
	for range 1 + c.rng.IntN(3) {
		n := c.rng.Uint32N(16385)
		if c.rng.IntN(2) == 0 {
			n = c.rng.Uint32N(400)
		}
		c.to(ToServer).framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: n})
		side.encoder.SetMaxDynamicTableSize(n)
	}
	c.to(ToClient).framer.WriteSettingsAck()
}

func (c *conversation) noise(s *side) {
	switch c.rng.IntN(5) {
	case 0:
		s.framer.WritePing(false, [8]byte{1, 5, 1, 4})
	case 1:
		s.framer.WriteWindowUpdate(c.rng.Uint32N(10), 1+c.rng.Uint32N(1000))
	case 2:
		s.framer.WritePriority(1+c.rng.Uint32N(99), http2.PriorityParam{Weight: 3})
	case 3:
		s.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 65536})
	case 4:
		s.framer.WriteRawFrame(http2.FrameType(10+c.rng.IntN(200)), http2.Flags(c.rng.IntN(256)), c.rng.Uint32N(50), make([]byte, c.rng.IntN(300)))
	}
}

// settled notes what must be told, when it is.
func (c *conversation) settled(s *stream, a Answer, ended place) {
	c.remove(s)
	c.told = append(c.told, told{Answer: a, began: s.began, ended: ended})
}

func (c *conversation) remove(s *stream) {
	for i, o := range c.streams {
		if o == s {
			c.streams = append(c.streams[:i:i], c.streams[i+1:]...)
			return
		}
	}
}

// finish ends the connection, by a GOAWAY or without.
func (c *conversation) finish() {
	code := http2.ErrCode(0)
	if c.rng.IntN(2) == 0 {
		side := c.to(ToClient)
		at := c.here(ToClient)
		last := c.rng.Uint32N(c.next + 1)
		if c.rng.IntN(2) == 0 {
			code = http2.ErrCode(c.rng.Uint32N(16))
		}
		side.framer.WriteGoAway(last, code, make([]byte, c.rng.IntN(30)))
		for _, s := range append([]*stream{}, c.streams...) {
			if s.id > last {
				c.ended(s, unserved(uint32(code)), at)
			}
		}
	}
	by := Way(c.rng.IntN(2))
	s := c.to(by)
	c.flush(by, true)
	c.now += 5
	c.pieces = append(c.pieces, Piece{Conn: c.conn, Way: by, Serial: s.serial, NS: c.now, End: true})
	end := place{by, s.cut}
	s.cuts = append(s.cuts, cut{s.cut, c.now})
	is := Failed
	if by == ToServer {
		is = Aborted
	} else if unanswered(uint32(code)) == Faulted {
		is = Faulted
	}
	for _, s := range append([]*stream{}, c.streams...) {
		c.ended(s, is, end)
	}
}

// answers are those that must be told, in their order.
func (c *conversation) answers() []Answer { return c.resolve(c.told) }

func (c *conversation) resolve(all []told) []Answer {
	out := make([]Answer, 0, len(all))
	for _, t := range all {
		a := t.Answer
		a.Conn, a.BeganNS, a.EndedNS = c.conn, c.ns(t.began), c.ns(t.ended)
		out = append(out, a)
	}
	return out
}

// ns is when the piece came by that has the place's first byte.
func (c *conversation) ns(p place) uint64 {
	cuts := c.sides[p.way].cuts
	i := sort.Search(len(cuts), func(i int) bool { return cuts[i].offset > p.offset })
	return cuts[i-1].ns
}
