package bpf_test

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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

// ends lets a side say that it is through.
func (d *dialogue) ends(side int) {
	d.t.Helper()
	p := packet{src: d.from, dst: d.vip, flags: fin | ack, seq: isn + 1 + d.sent[asking], ack: serverISN + 1 + d.sent[answering]}
	program := d.program
	if side == answering {
		p.src, p.dst, p.seq, p.ack = d.server, d.from, p.ack, p.seq
		program = d.SiskinEgress
	}
	d.steered(program, p)
	d.sent[side]++
}

// fails ends the connection by the server's RST, and tells whether that was an
// error.
func (d *dialogue) fails() bool {
	d.t.Helper()
	before := d.tally(1).Reset
	d.resets(answering)
	return d.tally(1).Reset != before
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
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1, bpf.AnswerLost: 3}, untimed: 3},
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
		{what: "an answer was missed, then the end", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(answering, httpOK(""))
			d.say(asking, httpGET()+httpGET())
			d.miss(answering, httpOK("1")+httpOK("2"))
			d.ends(asking)
			d.ends(answering)
			d.again()
		}, want: want{bpf.Answer2xx: 1, bpf.AnswerLost: 2}, untimed: 2},
		{what: "an answer was missed, then a RST", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.miss(answering, httpOK(""))
			if d.fails() {
				d.t.Error("who has answered is said to have failed")
			}
			d.again()
		}, want: want{bpf.AnswerLost: 1}, untimed: 1},
		{what: "a RST in the place of an answer", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(answering, httpOK(""))
			d.say(asking, httpGET())
			if !d.fails() {
				d.t.Error("who has not answered is not said to have failed")
			}
			d.again()
		}, want: want{bpf.Answer2xx: 1}},
		{what: "the server goes away", plays: func(d *dialogue) {
			d.say(asking, httpGET()+httpGET())
			d.ends(answering)
			d.ends(asking)
			d.again()
		}, want: want{bpf.AnswerLost: 1}, untimed: 1},
		{what: "the client goes away", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.ends(asking)
			d.ends(answering)
			d.again()
		}, want: want{}},
		{what: "the server does not wait for a request's end", plays: func(d *dialogue) {
			d.say(asking, "GET / HTTP/1.1\r\n")
			d.ends(answering)
			d.ends(asking)
			d.again()
		}, want: want{}},
		{what: "many small answers at once", plays: func(d *dialogue) {
			const n = 262
			text := strings.Repeat(crlf("HTTP/1.1 200 OK", "Server: any", "Date: Thu, 26 Nov 2026 15:00:00 GMT", "Content-Type: text/plain",
				"X-Request-Id: 0b9c2f5e-6a57-4d0e-9a57-1c1c5f0f8d11", "Connection: keep-alive", "Content-Length: 49")+strings.Repeat("x", 49), n)
			d.say(asking, strings.Repeat(httpGET(), n))
			for at := 1400; at < len(text); at += 1400 { // kept till the first ones come
				d.segment(answering, uint32(at), text[at:min(at+1400, len(text))])
			}
			d.segment(answering, 0, text[:1400])
		}, want: want{bpf.Answer2xx: 262}, untimed: 262 - 1 - 8},
		{what: "HEAD in a pipeline deeper than is remembered", plays: func(d *dialogue) {
			d.say(asking, strings.Repeat(httpGET(), 20)+crlf("HEAD / HTTP/1.1")+strings.Repeat(httpGET(), 63))
			d.say(answering, strings.Repeat(httpOK("1"), 20)+status(404, "Content-Length: 9")+strings.Repeat(httpOK("1"), 63))
		}, want: want{bpf.Answer2xx: 83, bpf.Answer4xx: 1}, untimed: 84 - 1 - 8},
		{what: "another request in the place of HEAD", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(answering, httpOK(""))
			d.say(asking, crlf("HEAD / HTTP/1.1")+strings.Repeat(httpGET(), 64))
			d.say(answering, status(404, "Content-Length: 9"))
		}, want: want{bpf.Answer2xx: 1, bpf.AnswerLost: 1}, unread: true},
		{what: "HEAD in the place of another request", plays: func(d *dialogue) {
			d.say(asking, httpGET())
			d.say(answering, httpOK(""))
			d.say(asking, strings.Repeat(httpGET(), 64)+crlf("HEAD / HTTP/1.1"))
			d.say(answering, httpOK("1"))
		}, want: want{bpf.Answer2xx: 1, bpf.AnswerLost: 1}, unread: true},
		{what: "a request in the very moment of an answer", plays: (*dialogue).overlap, want: want{bpf.Answer2xx: overlaps}, waits: true},
		{what: "a guess", plays: func(d *dialogue) {
			d.sent[answering] = 1 << 25
			d.segment(asking, 0, crlf("HEAD / HTTP/1.1"))
			d.sent[answering] = 0
			d.say(asking, httpGET())
			d.say(answering, httpOK(status(500, "Content-Length: 0")))
		}, want: want{bpf.Answer2xx: 1}},
		{what: "more than there is time for", plays: func(d *dialogue) {
			for _, i := range []uint32{1, 2, 0} { // kept till the first one comes
				d.segment(asking, 3000*i, strings.Repeat("G\n\n", 1000))
			}
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

const overlaps = 3000

// overlap asks while the request before is answered, on two CPUs: whichever
// comes first, the new request waits.
func (d *dialogue) overlap() {
	d.t.Helper()
	d.say(asking, httpGET())
	slot, _ := d.slot(flowKey(d.from, d.vip, tcp))
	var asked, answered [][]byte
	for range overlaps {
		p := packet{src: d.from, dst: d.vip, flags: ack, payload: []byte(httpGET()), seq: isn + 1 + d.sent[asking], ack: serverISN + 1 + d.sent[answering]}
		asked = append(asked, p.frame())
		d.sent[asking] += uint32(len(p.payload))
		p = packet{src: d.server, dst: d.from, flags: ack, payload: []byte(httpOK("")), seq: p.ack, ack: p.seq}
		answered = append(answered, p.frame())
		d.sent[answering] += uint32(len(p.payload))
	}
	var turn, done atomic.Int32
	var group sync.WaitGroup
	group.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for i, frame := range answered {
			for int(turn.Load()) <= i {
				runtime.Gosched()
			}
			for range i % 61 * 8 { // so that they meet in all ways
				done.Load()
			}
			if _, _, err := d.SiskinEgress.Test(frame); err != nil {
				d.t.Errorf("run: %v", err)
			}
			done.Add(1)
		}
	})
	for i, frame := range asked {
		turn.Add(1)
		for range i % 67 * 8 {
			done.Load()
		}
		d.run(d.program, frame)
		for int(done.Load()) <= i {
			runtime.Gosched()
		}
		var s bpf.Slot
		if err := d.Flows.Lookup(slot, &s); err != nil {
			d.t.Errorf("flow: %v", err)
		} else if s.Flow.RequestNs == 0 {
			d.t.Errorf("request %d does not wait", i)
		}
	}
	group.Wait()
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
	d := ended{want: s.want, untimed: s.untimed, unread: s.unread}.after(w, plain(), s.plays)
	if waits := d.flow(flowKey(d.from, w.vip, tcp)).RequestNs != 0; waits != s.waits {
		t.Errorf("a request waits: %v, want %v", waits, s.waits)
	}
}
