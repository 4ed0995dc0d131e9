package bpf_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// nonsense is what hostile peers say: bytes by chance, pieces of what is right,
// and both.
func nonsense(rng *rand.Rand) string {
	right := []string{
		httpGET(), httpOK("hello"), status(500), status(101), status(100), "HTTP/1.1 ", "HTTP/1.1 999 \r\n", "HEAD / HTTP/1.1\r\n\r\n", "CONNECT a HTTP/1.1\r\n\r\n",
		"Content-Length: 5\r\n", "Content-Length: 99999999999999999999\r\n", "Transfer-Encoding: chunked\r\n\r\n", "ffffffffffffffff\r\n", "0\r\n\r\n", "5\r\n", "\r\n", "\n",
		"\r", http2.ClientPreface, "\x00\x00\x05\x01\x04\x00\x00\x00\x01\x88\x88\x88\x88\x88", "\xff\xff\xff\x01\x04\x00\x00\x00\x01", "\x00\x00\x00\x00\x01\x00\x00\x00\x01",
		"\x16\x03\x01\x02\x00", strings.Repeat("a: b\r\n", 300), strings.Repeat("\n", 1300), strings.Repeat("x", 1300),
	}
	var b strings.Builder
	for range 1 + rng.IntN(6) {
		piece := []byte(right[rng.IntN(len(right))])
		for range rng.IntN(3) * rng.IntN(3) {
			piece[rng.IntN(len(piece))] = byte(rng.Uint32())
		}
		b.Write(piece[:rng.IntN(len(piece)+1)])
	}
	return b.String()[:min(b.Len(), 1400)]
}

// TestRootHostileTalk lets both ends of connections to the canary say anything,
// in any segments, while stable's clients ask and are answered: every packet is
// steered, and no counter of stable's is moved but by its own answers.
//
//	go test -run TestRootHostileTalk ./bpf -args -fuzzfor 10m -fuzzseed …
func TestRootHostileTalk(t *testing.T) {
	seed := *fuzzSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	// Flows that were reset stay for ten seconds.
	eachHook(t, map[string]any{"flows": uint32(1 << 15)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		w.start()
		w.shares(5000, 1)
		inputs, asked := 0, uint64(0)
		good := w.newcomerOn(0)
		for end := time.Now().Add(*fuzzFor / 4); time.Now().Before(end); {
			w.shares(0, 2)
			d := &dialogue{watched: w, from: good, server: w.stable, how: plain()}
			good = nextPort(good)
			d.open()
			w.shares(steering.Whole, 3)
			hostile := hold(w, plain())
			for range 40 {
				hostile.anything(rng)
				inputs++
			}
			d.say(asking, httpGET())
			d.say(answering, httpOK("fine"))
			asked++
			var want bpf.Answers
			want.Of[bpf.Answer2xx] = asked
			if got := w.answersOf(1); got != want {
				t.Fatalf("after %d inputs stable's %d requests are counted as %v", inputs, asked, got.Of)
			}
			for _, who := range []*dialogue{d, hostile} { // their flows make room for others
				w.run(w.program, packet{src: who.from, dst: w.vip, flags: rst, seq: isn + 1 + who.sent[asking]}.frame())
			}
		}
		if n := w.responses(0); n != asked {
			t.Errorf("%d response times of stable's %d answers", n, asked)
		}
		t.Logf("%d inputs, %d requests", inputs, asked)
	})
}

// anything lets a side say something that may be anything, anywhere in its
// stream, and expects it to be steered.
func (d *dialogue) anything(rng *rand.Rand) {
	d.t.Helper()
	text, side := nonsense(rng), rng.IntN(2)
	at := d.sent[side]
	switch rng.IntN(6) {
	case 0: // again, or over what was said
		at -= min(at, rng.Uint32N(3000))
	case 1: // with a hole before it
		at += rng.Uint32N(5000)
	}
	d.segment(side, at, text)
	if end := at + uint32(len(text)); at <= d.sent[side] && end > d.sent[side] || rng.IntN(4) == 0 {
		d.sent[side] = max(d.sent[side], end)
	}
}
