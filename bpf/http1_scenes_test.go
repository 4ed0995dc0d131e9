package bpf_test

import (
	"fmt"
	"strings"
	"testing"

	"siskin.dev/siskin/bpf"
)

// miss lets a side say something that comes by in fragments, which nobody reads.
func (d *dialogue) miss(side int, text string) {
	d.t.Helper()
	p := packet{
		src: d.from, dst: d.vip, flags: ack, payload: []byte(text), fragment: 1, ident: 7,
		seq: isn + 1 + d.sent[asking], ack: serverISN + 1 + d.sent[answering],
	}
	program := d.program
	if side == answering {
		p.src, p.dst, p.seq, p.ack = d.server, d.from, p.ack, p.seq
		program = d.SiskinEgress
	}
	d.steered(program, p)
	d.sent[side] += uint32(len(text))
}

// again ends the connection, and opens another one from the same port, which
// has its slot and its numbers.
func (d *dialogue) again() {
	d.t.Helper()
	slot, old := d.slot(flowKey(d.from, d.vip, tcp))
	d.run(d.program, packet{src: d.from, dst: d.vip, flags: rst, seq: isn + 1 + d.sent[asking]}.frame())
	d.sent = [2]uint32{}
	d.open()
	if at, s := d.slot(flowKey(d.from, d.vip, tcp)); at != slot || s.Flow.OpenedNs == old.Flow.OpenedNs {
		d.t.Errorf("the new connection has slot %d, the old one had %d", at, slot)
	}
}

type http1Scene struct {
	what    string
	plays   func(d *dialogue)
	want    want
	untimed uint64 // answers without a time
	unread  bool
	waits   bool // a request does at the end
}

func http1Scenes() []http1Scene {
	return []http1Scene{
		{what: "an answer was missed", plays: func(d *dialogue) {
			missed := httpOK("the answer was missed")
			d.say(asking, httpGET())
			d.miss(answering, missed)
			d.say(asking, httpGET())
			d.segment(answering, uint32(len(missed)/2), missed[len(missed)/2:]) // once more
			d.say(answering, status(404, "Content-Length: 0"))
			d.say(asking, httpGET())
			d.say(answering, httpOK("hello"))
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1, bpf.AnswerLost: 1}, untimed: 1},
		{what: "an answer was missed, then two are asked for", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.miss(answering, httpOK("the answer was missed"))
			d.say(asking, httpGET()+crlf("HEAD / HTTP/1.1"))
			d.say(answering, httpOK(status(500))+status(404, "Content-Length: 10"))
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1, bpf.AnswerLost: 1}, untimed: 1},
		{what: "a request was missed", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(answering, httpOK("1"))
			d.miss(asking, httpGET())
			d.say(answering, httpOK("2"))
			d.say(asking, httpGET())
			d.say(answering, httpOK("3"))
		}, want: want{bpf.Answer2xx: 3}, untimed: 1},
		{what: "a port used again", plays: func(d *dialogue) {
			first := httpOK("hello")
			end := uint32(len(first))
			d.say(asking, strings.Repeat(httpGET(), 3))
			d.segment(answering, end, status(500, "Content-Length: 0")) // too early
			d.again()
			d.say(asking, httpGET()+httpGET())
			d.segment(answering, 10, first[10:])
			d.segment(answering, 0, first[:10])
			d.sent[answering] = end
			d.say(answering, status(404, "Content-Length: 0"))
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1}},
		{what: "a port used again, and what the last connection sent", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(answering, httpOK("hello"))
			late := d.sent
			d.run(d.program, packet{src: d.from, dst: d.vip, flags: rst, seq: isn + 1 + d.sent[asking]}.frame())
			d.connect(d.from)
			d.segment(answering, late[answering]-5, "hello")
			d.sent = [2]uint32{}
			d.shaken()
			d.say(asking, httpGET())
			d.say(answering, status(404, "Content-Length: 0"))
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1}},
		{what: "the second of two waits", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(asking, httpGET())
			asked := bpf.Now()
			d.say(answering, httpOK("1"))
			if since := d.flow(flowKey(d.from, d.vip, tcp)).RequestNs; since == 0 || since > uint64(asked) {
				d.t.Errorf("it waits since %d, and was asked before %d", since, asked)
			}
			d.say(answering, httpOK("2"))
		}, want: want{bpf.Answer2xx: 2}},
		{what: "both sides in disorder, over what was said", plays: func(d *dialogue) {
			first, all := httpOK("hello"), httpOK("hello")+status(404, "Content-Length: 0")
			asks, end := httpGET()+httpGET(), uint32(len(httpOK("hello")))
			d.say(asking, asks[:len(asks)/2])
			d.segment(asking, uint32(len(asks)-9), asks[len(asks)-9:])
			d.segment(answering, end-3, all[end-3:]) // of "hello" the end
			d.segment(asking, uint32(len(asks)/2), asks[len(asks)/2:len(asks)-4])
			d.segment(answering, 0, first)
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1}},
		{what: "a guess", plays: func(d *dialogue) {
			d.sent[answering] = 1 << 25
			d.segment(asking, 0, crlf("HEAD / HTTP/1.1"))
			d.sent[answering] = 0
			d.say(asking, httpGET())
			d.say(answering, httpOK(status(500, "Content-Length: 0")))
		}, want: want{bpf.Answer2xx: 1}},
		{what: "more than there is time for", plays: func(d *dialogue) {
			d.segment(asking, 0, strings.Repeat("G\n\n", 1000))
		}, want: want{}, unread: true, waits: true},
		{what: "more requests than their numbers count", plays: func(d *dialogue) {
			for range 1<<16/80 + 1 { // the last one has number 65,599
				d.say(asking, strings.Repeat("GET / HTTP/1.1\r\n\r\n", 70))
				d.say(answering, strings.Repeat("HTTP/1.1 204\r\n\r\n", 70))
				d.say(asking, strings.Repeat("GET / HTTP/1.1\r\n\r\n", 10))
				d.say(answering, strings.Repeat("HTTP/1.1 204\r\n\r\n", 10))
			}
		}, want: want{bpf.Answer2xx: 65600}, untimed: 820 * (61 + 1)},
		{what: "a tunnel that does not wait", plays: func(d *dialogue) {
			d.say(asking, crlf("CONNECT a:22 HTTP/1.1")+"SSH-2.0-any\r\n")
			d.say(answering, status(200)+"SSH-2.0-other\r\n")
			d.say(asking, "more")
			d.say(answering, "more")
		}, want: want{bpf.Answer2xx: 1}, unread: true},
		{what: "a RST with a text", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			before := d.tally(1).Reset
			d.reply(packet{src: d.server, dst: d.from, flags: rst | ack, seq: serverISN + 1, ack: isn + 1 + d.sent[asking], payload: []byte(httpOK(""))})
			if n := d.tally(1).Reset - before; n != 1 {
				d.t.Errorf("%d requests were reset, want 1", n)
			}
		}, want: want{}, waits: true},
		{what: "a client that was reset goes on", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(answering, httpOK(""))
			d.reply(packet{src: d.server, dst: d.from, flags: rst, seq: serverISN + 1 + d.sent[answering]})
			d.say(asking, httpGET())
		}, want: want{bpf.Answer2xx: 1}},
	}
}

// TestRootHTTP1Scenes plays what does not depend on how it is delivered.
func TestRootHTTP1Scenes(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		for _, s := range http1Scenes() {
			t.Run(s.what, func(t *testing.T) { s.run(t, w.of(t)) })
		}
	})
}

func (s *http1Scene) run(t *testing.T, w *watched) {
	before, timed := w.answersOf(1), w.responses(0)
	d := hold(w, plain())
	s.plays(d)
	got, all := want{}, uint64(0)
	for i, n := range w.answersOf(1).Of {
		if n -= before.Of[i]; n > 0 {
			got[bpf.Answer(i)] = n
			all += n
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(s.want) {
		t.Errorf("requests ended as %v, want %v", got, s.want)
	}
	if n := w.responses(0) - timed; n != all-s.untimed {
		t.Errorf("%d response times were taken of %d answers, want %d", n, all, all-s.untimed)
	}
	f := w.flow(flowKey(d.from, w.vip, tcp))
	if unread := f.Flags&bpf.FlowUnread != 0; unread != s.unread {
		t.Errorf("unread: %v, want %v", unread, s.unread)
	}
	if waits := f.RequestNs != 0; waits != s.waits {
		t.Errorf("a request waits: %v, want %v", waits, s.waits)
	}
}
