package bpf_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2"

	"siskin.dev/siskin/bpf"
)

// A script is frames of one direction: all of them, and what of them user space
// shall have.
type script struct {
	all, wanted bytes.Buffer
	client      bool
	last        uint32 // stream that the client has opened
}

// twoSides are a client's script and a server's.
func twoSides() (sides [2]script) {
	sides[asking].client = true
	return sides
}

// add writes a frame, which is wanted of a server or not. Of a client it is the
// head of what begins a stream or ends one.
func (s *script) add(wanted bool, write func(*http2.Framer) error) {
	var one bytes.Buffer
	if err := write(http2.NewFramer(&one, nil)); err != nil {
		panic(fmt.Sprintf("frame: %v", err)) // the test's own
	}
	frame := one.Bytes()
	s.all.Write(frame)
	if s.client {
		kind, stream := frame[3], binary.BigEndian.Uint32(frame[5:])
		wanted = kind == 1 && stream > s.last || kind == 3 && stream <= s.last
		if kind == 1 {
			s.last = max(s.last, stream)
		}
		frame = frame[:9]
	}
	if wanted {
		s.wanted.Write(frame)
	}
}

// random adds a frame of any kind. What fields it has does not matter here.
func (s *script) random(rng *rand.Rand) {
	some := func(most int) []byte {
		b := make([]byte, rng.IntN(most))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	stream := uint32(1 + 2*rng.IntN(100))
	switch rng.IntN(10) {
	case 0, 1, 2:
		s.add(true, func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: stream, BlockFragment: some(3000), EndHeaders: rng.IntN(2) == 0, PadLength: uint8(rng.IntN(20)),
				Priority: http2.PriorityParam{StreamDep: uint32(rng.IntN(2)), Weight: 7},
			})
		})
	case 3:
		s.add(true, func(f *http2.Framer) error { return f.WriteContinuation(stream, true, some(500)) })
	case 4:
		s.add(true, func(f *http2.Framer) error { return f.WriteRSTStream(stream, http2.ErrCodeInternal) })
	case 5:
		s.add(false, func(f *http2.Framer) error {
			return f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: rng.Uint32N(1 << 16)})
		})
	case 6:
		s.add(false, func(f *http2.Framer) error { return f.WriteWindowUpdate(stream, 1+rng.Uint32N(1<<20)) })
	case 7:
		s.add(false, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
	case 8:
		s.add(true, func(f *http2.Framer) error { return f.WriteGoAway(stream, http2.ErrCodeNo, some(30)) })
	default:
		s.add(false, func(f *http2.Framer) error { return f.WriteData(stream, false, some(8000)) })
	}
}

// handed reads what was handed over since the last time, in the order of each
// direction.
func handed(t *testing.T, p *bpf.Pieces, d *dialogue) (to [2]bytes.Buffer) {
	t.Helper()
	slot, s := d.slot(flowKey(d.from, d.vip, tcp))
	var serial [2]uint32
	for p.Waiting() > 0 {
		piece, err := p.Read()
		if err != nil {
			t.Fatal(err)
		}
		way := 0
		if piece.ToClient {
			way = 1
		}
		if piece.Slot != slot || piece.OpenedNS != s.Flow.OpenedNs || piece.Lost || piece.Backend != 1 {
			t.Errorf("a piece of slot %d backend %d, lost %v; the flow has slot %d", piece.Slot, piece.Backend, piece.Lost, slot)
		}
		if piece.Serial != serial[way] {
			t.Errorf("piece %d of direction %d came as number %d", serial[way], way, piece.Serial)
		}
		if way == asking && len(piece.Data) != 9 {
			t.Errorf("%d bytes of the client", len(piece.Data))
		}
		serial[way]++
		to[way].Write(piece.Data)
	}
	return to
}

// TestRootHTTP2 lets both sides speak in random frames, in all deliveries, and
// compares what user space is handed with what it needs, byte for byte.
func TestRootHTTP2(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		for _, how := range deliveries(rng) {
			t.Run(how.name, func(t *testing.T) {
				w := w.of(t)
				d := hold(w, how)
				sides := twoSides()
				sides[asking].all.WriteString(http2.ClientPreface)
				for round := range 12 {
					for side := range sides {
						s := &sides[side]
						from := s.all.Len()
						if round == 0 && side == asking {
							from = 0
						}
						for range 1 + rng.IntN(4) {
							s.random(rng)
						}
						d.say(side, string(s.all.Bytes()[from:]))
					}
				}
				wantHanded(t, pieces, d, &sides)
			})
		}
	})
}

// wantHanded compares what was handed over of a dialogue with what its sides
// wanted to be, and wants it to be read on.
func wantHanded(t *testing.T, p *bpf.Pieces, d *dialogue, sides *[2]script) {
	t.Helper()
	got := handed(t, p, d)
	for side := range sides {
		if want := sides[side].wanted.Bytes(); !bytes.Equal(got[side].Bytes(), want) {
			t.Errorf("side %d: %d bytes were handed over, want %d, equal up to %d", side, got[side].Len(), len(want), common(got[side].Bytes(), want))
		}
	}
	if f := d.flow(flowKey(d.from, d.vip, tcp)); f.Flags&bpf.FlowUnread != 0 {
		t.Error("the connection is not read any more")
	}
}

// TestRootHTTP2Upgrade begins HTTP/2 by an HTTP/1 request, which is the first
// stream; what was agreed on is no answer. In all deliveries but in disorder:
// nobody speaks frames before that was agreed.
func TestRootHTTP2Upgrade(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		for _, how := range deliveries(rng) {
			if how.shuffle != nil {
				continue
			}
			t.Run(how.name, func(t *testing.T) {
				w := w.of(t)
				before := w.answersOf(1)
				d := hold(w, how)
				d.say(asking, httpGET("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))
				waits := w.flow(flowKey(d.from, w.vip, tcp)).RequestNs
				var server script
				client := script{client: true, last: 1}
				server.random(rng)
				d.say(answering, crlf("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: h2c")+server.all.String())
				client.random(rng)
				client.add(true, func(f *http2.Framer) error {
					return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1001, BlockFragment: []byte{0x82}, EndHeaders: true})
				})
				d.say(asking, http2.ClientPreface+client.all.String())
				first, err := pieces.Read()
				if err != nil {
					t.Fatal(err)
				}
				if !first.Upgraded || !first.ToClient || first.Serial != 0 || first.NS != waits || waits == 0 {
					t.Errorf("the first piece is %+v; the request began at %d", first, waits)
				}
				var got [2]bytes.Buffer
				serial := [2]uint32{answering: 1}
				for pieces.Waiting() > 0 {
					p, err := pieces.Read()
					if err != nil {
						t.Fatal(err)
					}
					way := side(p.ToClient)
					if p.Serial != serial[way] {
						t.Errorf("piece %d of direction %d came as number %d", serial[way], way, p.Serial)
					}
					serial[way]++
					got[way].Write(p.Data)
				}
				if !bytes.Equal(got[0].Bytes(), client.wanted.Bytes()) || !bytes.Equal(got[1].Bytes(), server.wanted.Bytes()) {
					t.Errorf("%d and %d bytes were handed over, want %d and %d", got[0].Len(), got[1].Len(), client.wanted.Len(), server.wanted.Len())
				}
				if after := w.answersOf(1); after != before {
					t.Errorf("counted %v, before %v", after, before)
				}
			})
		}
	})
}

// settings are what is said before any request.
func settings() string {
	var s script
	s.add(false, func(f *http2.Framer) error { return f.WriteSettings() })
	return s.all.String()
}

// question is HEADERS, which begin a stream or, on an old one, trail it.
func question(stream uint32) string {
	var s script
	s.add(true, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x82}, EndHeaders: true})
	})
	return s.all.String()
}

// TestRootServerGoes lets a server reset a connection on which nobody waits for
// it, or somebody does. Who waits on HTTP/2 is known to user space alone, so that
// is told that the connection is over, behind all that was said.
func TestRootServerGoes(t *testing.T) {
	hello := record(22, "hello")
	cases := []struct {
		what   string
		said   []line
		errors uint64
		over   bool // what is told
		unread bool
	}{
		{"HTTP/2, nothing was asked", []line{asks(http2.ClientPreface, settings()), answers(settings())}, 0, true, false},
		{"HTTP/2, the server was first", []line{answers(settings()), asks(http2.ClientPreface, settings()), answers(settings())}, 0, true, false},
		{"HTTP/2, the server was alone", []line{answers(settings())}, 0, true, false},
		{"HTTP/2, a request waits", []line{asks(http2.ClientPreface, settings()), answers(settings()), asks(question(1))}, 0, true, false},
		{"HTTP/2, the server is silent", []line{asks(http2.ClientPreface, settings(), question(1))}, 1, true, false},
		{"TLS, a handshake", []line{asks(hello), answers(hello)}, 0, false, false},
		{"TLS, the client went", []line{asks(hello), answers(hello), asks(record(21, "\x02\x5a"))}, 0, false, true},
		{"TLS, the server is silent", []line{asks(hello)}, 1, false, false},
		{"HTTP/1, a request waits", []line{asks(httpGET()), answers(httpOK("")), asks(httpGET())}, 1, false, false},
	}
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		for _, c := range cases {
			t.Run(c.what, func(t *testing.T) {
				w := w.of(t)
				before := w.tally(1).Reset
				d := hold(w, plain())
				for _, l := range c.said {
					d.say(l.side, l.text)
				}
				d.resets(answering)
				d.resets(answering)
				if f := w.flow(flowKey(d.from, w.vip, tcp)); f.Flags&bpf.FlowUnread != 0 && !c.unread {
					t.Error("the connection is not read any more")
				}
				if n := w.tally(1).Reset - before; n != c.errors {
					t.Errorf("%d errors, want %d", n, c.errors)
				}
				over := 0
				for pieces.Waiting() > 0 {
					p, err := pieces.Read()
					if err != nil {
						t.Fatal(err)
					}
					if p.Over && (p.Lost || !p.ToClient || pieces.Waiting() > 0) {
						t.Errorf("it is over: %+v, and %d bytes come behind it", p, pieces.Waiting())
					}
					if p.Over {
						over++
					}
				}
				if over > 1 || (over > 0) != c.over {
					t.Errorf("that it is over was told %d times", over)
				}
			})
		}
	})
}

// TestRootClientGoes: a client that resets its connection waits for nothing any
// more; and where the server has said what did not come by here, nobody knows
// what that was.
func TestRootClientGoes(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		for _, missed := range []bool{false, true} {
			d := hold(w, plain())
			d.say(asking, http2.ClientPreface+question(1))
			if missed {
				d.segment(answering, 100, "early")
			}
			d.resets(asking)
			var last bpf.Piece
			for pieces.Waiting() > 0 {
				var err error
				if last, err = pieces.Read(); err != nil {
					t.Fatal(err)
				}
			}
			if !last.Over || last.ToClient || last.Lost != missed {
				t.Errorf("the server was missed: %v; at last was told %+v", missed, last)
			}
		}
	})
}

// resets lets a side end the connection.
func (d *dialogue) resets(side int) {
	d.t.Helper()
	if side == asking {
		d.steered(d.program, packet{src: d.from, dst: d.vip, flags: rst, seq: isn + 1 + d.sent[asking]})
		return
	}
	d.reply(packet{src: d.server, dst: d.from, flags: rst | ack, seq: serverISN + 1 + d.sent[answering], ack: isn + 1 + d.sent[asking]})
}

// pieces reads what is handed over to user space.
func (w *watched) pieces() *bpf.Pieces {
	w.t.Helper()
	pieces, err := bpf.NewPieces(w.Pieces)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { pieces.Close() })
	return pieces
}

func common(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
