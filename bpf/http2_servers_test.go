package bpf_test

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"

	"siskin.dev/siskin/bpf"
)

// What real servers do with HTTP/2.
func TestRootHTTP2Servers(t *testing.T) {
	settings := func(s *script, wanted bool) {
		s.add(wanted, func(f *http2.Framer) error { return f.WriteSettings() })
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
			settings(&sides[answering], false)
			d.say(answering, sides[answering].all.String())
			from := sides[answering].all.Len()
			settings(&sides[asking], true)
			headers(&sides[asking], 1)
			d.say(asking, http2.ClientPreface+sides[asking].all.String())
			headers(&sides[answering], 1)
			d.say(answering, string(sides[answering].all.Bytes()[from:]))
		}},
		// apache: the client's preface comes after the server has agreed, and
		// the pieces of each direction count from 0.
		{"upgrade", func(d *dialogue, sides *[2]script) {
			d.say(asking, httpGET("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))
			settings(&sides[answering], true)
			d.say(answering, crlf("HTTP/1.1 101 Switching Protocols", "Upgrade: h2c", "Connection: Upgrade")+sides[answering].all.String())
			settings(&sides[asking], true)
			d.say(asking, http2.ClientPreface+sides[asking].all.String())
		}},
	}
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		pieces, err := bpf.NewPieces(w.Pieces)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pieces.Close() })
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				w := w.of(t)
				d := hold(w, plain())
				var sides [2]script
				c.talk(d, &sides)
				got := handed(t, pieces, d)
				for side := range sides {
					if want := sides[side].wanted.Bytes(); !bytes.Equal(got[side].Bytes(), want) {
						t.Errorf("side %d: %d bytes were handed over, want %d, equal up to %d", side, got[side].Len(), len(want), common(got[side].Bytes(), want))
					}
				}
				if f := w.flow(flowKey(d.from, w.vip, tcp)); f.Flags&bpf.FlowUnread != 0 {
					t.Error("the connection is not read any more")
				}
			})
		}
	})
}

// What is sent on a connection that was lost is not a request each time that
// the other side has said something: windows are updated, and pings answered.
func TestRootHTTP2LostCountsNoFrames(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		d := hold(w, plain())
		var asks, answer, update, more script
		asks.add(true, func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, EndHeaders: true})
		})
		answer.add(true, func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
		})
		for range 40 {
			answer.add(false, func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 500)) })
			more.add(false, func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 500)) })
		}
		update.add(false, func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 4000) })
		d.say(asking, http2.ClientPreface+asks.all.String())
		// More pieces come too early than can be kept.
		for at := uint32(1000); at < 20000; at += 1000 {
			d.segment(answering, at, answer.all.String()[at:at+500])
		}
		d.sent[answering] += uint32(answer.all.Len())
		if f := w.flow(flowKey(d.from, w.vip, tcp)); f.Flags&bpf.FlowUnread == 0 {
			t.Fatal("the connection is read still")
		}
		before := w.answersOf(1)
		for range 10 {
			d.say(asking, update.all.String())
			d.say(answering, more.all.String()[:500])
		}
		after := w.answersOf(1)
		if n := after.Of[bpf.AnswerLost] - before.Of[bpf.AnswerLost]; n > 1 {
			t.Errorf("%d requests were lost, there was one", n)
		}
	})
}
