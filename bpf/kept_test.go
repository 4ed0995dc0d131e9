package bpf_test

import (
	"testing"

	"siskin.dev/siskin/bpf"
)

// TestRootKeptForAll: many clients send segments too early, until every place
// that they can have is taken. What comes early from a server is kept all the
// same, and what comes early from another client once theirs have waited.
func TestRootKeptForAll(t *testing.T) {
	for _, c := range []struct {
		name  string
		age   uint32 // ms
		times uint64 // of the other's requests
	}{{"at once", 3_600_000, 2}, {"later", 0, 3}} {
		t.Run(c.name, func(t *testing.T) {
			eachHook(t, map[string]any{"flows": uint32(1024), "kept_age": c.age}, func(t *testing.T, w *watched) {
				w.readRequests(bpf.FrontendRead)
				for range 100 {
					d := hold(w, plain())
					d.say(asking, httpGET()[:10])
					for i := range uint32(8) {
						d.segment(asking, 100+10*i, "x")
					}
				}
				other := hold(w, plain())
				want, times := w.answersOf(1), w.responses(0)
				other.say(asking, httpGET())
				other.early(answering, status(404, "Content-Length: 0"))
				other.early(asking, httpGET())
				other.say(asking, httpGET())
				other.say(answering, status(503, "Content-Length: 0")+status(304))
				want.Of[bpf.Answer3xx]++
				want.Of[bpf.Answer4xx]++
				want.Of[bpf.Answer5xx]++
				if got := w.answersOf(1); got != want {
					t.Errorf("counted %v, want %v", got.Of, want.Of)
				}
				if n := w.responses(0) - times; n != c.times {
					t.Errorf("%d response times, want %d", n, c.times)
				}
			})
		})
	}
}

// early lets a side say something whose second half comes by first.
func (d *dialogue) early(side int, text string) {
	d.t.Helper()
	half := len(text) / 2
	d.segment(side, d.sent[side]+uint32(half), text[half:])
	d.segment(side, d.sent[side], text[:half])
	d.sent[side] += uint32(len(text))
}
