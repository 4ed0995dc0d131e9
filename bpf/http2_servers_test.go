package bpf_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"siskin.dev/siskin/bpf"
)

// What real servers do with HTTP/2.
func TestRootHTTP2Servers(t *testing.T) {
	settings := func(s *script) {
		s.add(false, func(f *http2.Framer) error { return f.WriteSettings() })
	}
	headers := func(s *script, stream uint32) {
		s.add(true, func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true})
		})
	}
	cases := []struct {
		name string
		talk func(d *dialogue, sides *[2]script)
	}{
		// grpc-go: its settings leave as soon as it has accepted, before the
		// client's preface is here (RFC 9113, section 3.4, lets it). They say
		// nothing that is needed.
		{"the server speaks first", func(d *dialogue, sides *[2]script) {
			settings(&sides[answering])
			d.say(answering, sides[answering].all.String())
			from := sides[answering].all.Len()
			settings(&sides[asking])
			headers(&sides[asking], 1)
			d.say(asking, http2.ClientPreface+sides[asking].all.String())
			headers(&sides[answering], 1)
			d.say(answering, string(sides[answering].all.Bytes()[from:]))
		}},
		// The same, cut where a frame does not end, and before the client.
		{"the server speaks first, and on", func(d *dialogue, sides *[2]script) {
			settings(&sides[answering])
			headers(&sides[answering], 1)
			said := sides[answering].all.String()
			d.say(answering, said[:12])
			headers(&sides[asking], 1)
			d.say(asking, http2.ClientPreface+sides[asking].all.String())
			d.say(answering, said[12:])
		}},
		// apache: the client's preface comes after the server has agreed, and
		// the pieces of each direction count from 0.
		{"upgrade", func(d *dialogue, sides *[2]script) {
			d.say(asking, httpGET("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))
			settings(&sides[answering])
			d.say(answering, crlf("HTTP/1.1 101 Switching Protocols", "Upgrade: h2c", "Connection: Upgrade")+sides[answering].all.String())
			settings(&sides[asking])
			d.say(asking, http2.ClientPreface+sides[asking].all.String())
		}},
	}
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				w := w.of(t)
				d := hold(w, plain())
				sides := twoSides()
				c.talk(d, &sides)
				wantHanded(t, pieces, d, &sides)
			})
		}
	})
}

// misses lets a side say what does not come by, and then more than can be kept
// until it does.
func (d *dialogue) misses(side int) {
	d.t.Helper()
	for range 10 {
		d.sent[side] += 100
		d.segment(side, d.sent[side], "early")
		d.sent[side] += 5
	}
}

// Of a connection whose server is not understood any more the requests are
// still handed over, and nothing else that is sent there is taken for one:
// windows are updated, and much is downloaded. When neither side is understood
// nothing is.
func TestRootHTTP2Lost(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		d := hold(w, plain())
		var update script
		update.add(false, func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 4000) })
		download := func() {
			for range 10 {
				d.say(asking, update.all.String())
				d.say(answering, strings.Repeat("data", 100))
			}
		}
		before := w.answersOf(1)
		d.say(asking, http2.ClientPreface+question(1))
		d.misses(answering)
		download()
		d.say(asking, question(3))
		d.misses(asking)
		download()
		d.say(asking, question(5))
		var streams []uint32
		var lost [2]int
		for pieces.Waiting() > 0 {
			p, err := pieces.Read()
			if err != nil {
				t.Fatal(err)
			}
			way := side(p.ToClient)
			if lost[way] > 0 {
				t.Errorf("direction %d is lost, and %d bytes of it come", way, len(p.Data))
			}
			if p.Lost {
				lost[way]++
			} else if way == asking && len(p.Data) == 9 {
				streams = append(streams, binary.BigEndian.Uint32(p.Data[5:]))
			}
		}
		if !slices.Equal(streams, []uint32{1, 3}) || lost != [2]int{1, 1} {
			t.Errorf("requests %v were handed over, and losses %v", streams, lost)
		}
		if after := w.answersOf(1); after != before {
			t.Errorf("counted %v, before %v", after.Of, before.Of)
		}
		if f := w.flow(flowKey(d.from, w.vip, tcp)); f.Flags&bpf.FlowUnread == 0 {
			t.Error("it is read, though nothing of it can be understood")
		}
	})
}

// What a client acknowledges and did not come by here never will: then the
// server is not understood any more, and that is said, for else whoever asks
// would seem to wait for ever. While it may come again, it is waited for.
func TestRootHTTP2Hole(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		d := hold(w, plain())
		lost := func() (n [2]int) {
			for pieces.Waiting() > 0 {
				p, err := pieces.Read()
				if err != nil {
					t.Fatal(err)
				}
				if p.Lost {
					n[side(p.ToClient)]++
				}
			}
			return n
		}
		d.say(asking, http2.ClientPreface+question(1))
		d.segment(answering, 100, "early")
		d.say(asking, question(3))
		if n := lost(); n != [2]int{} {
			t.Errorf("lost %v, where what is missing may still come", n)
		}
		d.sent[answering] = 105
		d.say(asking, question(5))
		d.say(asking, question(7))
		if n := lost(); n != [2]int{answering: 1} {
			t.Errorf("lost %v, want the server's direction once", n)
		}
	})
}

// Who says very much fills the room for what is handed over up to a part of it,
// and is lost then; the others are not.
func TestRootHTTP2Flood(t *testing.T) {
	const room, packets = 4 << 20, 100
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		flood, other := hold(w, plain()), hold(w, plain())
		stream := uint32(1)
		much := func() {
			var heads []byte
			for range 150 {
				heads = append(heads, 0, 0, 0, 1, 4)
				heads = binary.BigEndian.AppendUint32(heads, stream)
				stream += 2
			}
			flood.say(asking, string(heads))
		}
		flood.say(asking, http2.ClientPreface)
		other.say(asking, http2.ClientPreface)
		for pieces.Waiting() <= room/4*3 {
			if stream > 1e6 {
				t.Fatalf("after %d requests %d bytes wait", stream/2, pieces.Waiting())
			}
			much()
		}
		said := stream / 2
		for i := range uint32(packets) {
			much()
			other.say(asking, question(2*i+1))
			other.say(answering, "\x00\x00\x01\x01\x04\x00\x00\x00"+string([]byte{byte(2*i + 1)})+"\x88")
		}
		if n := w.reason(bpf.Note, "http2_unheard"); n > 0 {
			t.Errorf("for %d pieces there was no room", n)
		}
		slot, _ := w.slot(flowKey(other.from, w.vip, tcp))
		var heads, lost [2]uint32 // of the flood, and of the other
		for pieces.Waiting() > 0 {
			p, err := pieces.Read()
			if err != nil {
				t.Fatal(err)
			}
			who := 0
			if p.Slot == slot {
				who = 1
			}
			if p.Lost {
				lost[who]++
			} else if len(p.Data) == 9 {
				heads[who]++
			}
		}
		if heads[0] < said-150 || lost != [2]uint32{1, 0} || heads[1] != 2*packets {
			t.Errorf("%v frames were handed over, want %d at least and %d; lost %v times", heads, said-150, 2*packets, lost)
		}
	})
}

// A segment that is further ahead than what can be kept before it is nobody's who
// keeps to what the server can take: many such guesses lose nothing.
func TestRootHTTP2FarAhead(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces := w.pieces()
		d := hold(w, plain())
		d.say(asking, http2.ClientPreface+question(1))
		for i := range uint32(10) {
			d.segment(asking, d.sent[asking]+1<<20+1000*i, "guess")
		}
		d.say(asking, question(3))
		heads := 0
		for pieces.Waiting() > 0 {
			p, err := pieces.Read()
			if err != nil {
				t.Fatal(err)
			}
			if p.Lost {
				t.Error("the client's direction is lost")
			}
			heads++
		}
		if heads != 2 {
			t.Errorf("%d requests were handed over, want 2", heads)
		}
	})
}
