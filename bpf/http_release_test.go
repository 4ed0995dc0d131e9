package bpf_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
	"siskin.dev/siskin/streams"
)

// serverErrors are the statuses from 500 on.
func serverErrors(t *testing.T) bpf.Failures {
	t.Helper()
	var all []int
	for s := 500; s < 600; s++ {
		all = append(all, s)
	}
	f, err := bpf.FailuresOf(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestRootHTTPRelease lets servers of a release answer badly, on one rig: each
// part begins the release anew.
func TestRootHTTPRelease(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(128)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		r := w.releases()
		for name, part := range map[string]func(*testing.T, *watched, *bpf.Releases){
			"outcomes": releaseOutcomes, "slow": releaseSlow, "breaker": releaseBreaker, "heard": releaseHeard, "waits": releaseWaits,
			"hangs": releaseHangs, "successes": releaseSuccesses, "alerts": releaseAlerts, "slow client": releaseSlowClient,
		} {
			t.Run(name, func(t *testing.T) { part(t, w.of(t), r) })
		}
		w.start() // the timer books what the other parts do not want
		t.Run("pending", func(t *testing.T) { releasePending(t, w.of(t), r) })
	})
}

// releaseOutcomes lets the canary answer with errors, and compares what is
// booked: once for each client and step, whatever the number of errors.
func releaseOutcomes(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{time.Hour, time.Hour}})
	w.shares(steering.Whole, 3)
	for i := range 3 {
		d := hold(w, plain())
		for range 4 {
			d.say(asking, httpGET())
			d.say(answering, status([]int{500, 404, 599}[i], "Content-Length: 0"))
		}
	}
	w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 2})
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{})
}

// releaseSlow takes an answer that was a day in coming for slow, also when
// it was asked for behind another one.
func releaseSlow(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{1, 1}})
	w.shares(steering.Whole, 3)
	d := hold(w, plain())
	d.say(asking, httpGET()+httpGET())
	d.say(answering, status(500, "Content-Length: 0"))
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{})
	d.say(answering, httpOK(""))
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 1})
	if f := w.flow(flowKey(d.from, w.vip, tcp)); f.RequestNs != 0 {
		t.Errorf("a request is said to wait: %d", f.RequestNs)
	}
}

// releaseSlowClient lets clients take their time over a request, whose answer
// is not slow for that.
func releaseSlowClient(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	const limit = 200 * time.Millisecond
	w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{limit, limit}})
	w.shares(steering.Whole, 3)
	var all []*dialogue
	for _, begun := range []string{"GET / HT", crlf("POST / HTTP/1.1", "Content-Length: 9"), crlf("POST / HTTP/1.1", "Transfer-Encoding: chunked") + "9\r\n"} {
		d := hold(w, plain())
		d.say(asking, begun)
		all = append(all, d)
	}
	before, timed := bpf.Now(), w.responses(1)
	w.await("the clients to be slow", func() bool { return bpf.Now() > before+int64(limit) })
	for i, rest := range []string{"TP/1.1\r\n\r\n", "all of it", "all of it\r\n0\r\n\r\n"} {
		all[i].say(asking, rest)
		all[i].say(answering, httpOK(""))
	}
	hasty := hold(w, plain()) // it does not wait for the end
	hasty.say(asking, crlf("POST / HTTP/1.1", "Content-Length: 8"))
	before = bpf.Now()
	w.await("the client to be slow", func() bool { return bpf.Now() > before+int64(limit) })
	hasty.say(answering, status(413, "Content-Length: 0"))
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{})
	if n := w.responses(1) - timed; n != 4 {
		t.Errorf("%d response times, want 4", n)
	}
}

// releasePending lets requests wait: only one that the server has, and has said
// nothing to, is slow before its answer comes.
func releasePending(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	const limit = 20 * time.Millisecond
	w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{limit, limit}})
	w.shares(steering.Whole, 3)
	half, body, missed, waits := hold(w, plain()), hold(w, plain()), hold(w, plain()), hold(w, plain())
	half.say(asking, "GET / HTTP/1.1\r\n")
	body.say(asking, crlf("POST / HTTP/1.1", "Content-Length: 8")+"half")
	missed.say(asking, httpGET())
	missed.miss(answering, httpOK("hello"))
	begun := bpf.Now()
	w.await("the limit", func() bool { return bpf.Now() > begun+int64(limit) })
	w.await("no request to be slow", w.round())
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{})
	waits.say(asking, httpGET())
	body.say(asking, "rest")
	w.await("two to be slow", func() bool { return w.booked(r, bpf.OutcomeSlow)[bpf.Outcome{Version: 1, Epoch: 3, Step: 1}] == 2 })
}

// round tells when the timer's hand has been at every flow from now on.
func (w *watched) round() func() bool {
	w.t.Helper()
	n := uint64(w.Flows.MaxEntries())
	end := w.ticks() + n/(n/256+1) + 2
	return func() bool { return w.ticks() > end }
}

// releaseBreaker lets the canary answer 500 to everything on connections
// that are kept: the fifth error of distinct clients opens the breaker.
func releaseBreaker(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	w.begin(r, bpf.Watch{Failures: serverErrors(t), Limit: 450, Success: 10})
	w.shares(steering.Whole, 3)
	before := w.answersOf(2).Of[bpf.Answer5xx]
	var all []*dialogue
	for range 8 {
		all = append(all, hold(w, plain()))
		all[len(all)-1].say(asking, httpGET())
	}
	for i, d := range all {
		b, err := r.Breaker(0)
		if err != nil {
			t.Fatal(err)
		}
		if want := i >= 5; b.Tripped != want {
			t.Fatalf("after %d errors the breaker is open: %v", i, b.Tripped)
		}
		d.say(answering, status(503, "Content-Length: 0"))
	}
	if f := w.connect(w.newcomer()); f.Version != 0 {
		t.Errorf("a new client was given version %d", f.Version)
	}
	if got := w.answersOf(2).Of[bpf.Answer5xx] - before; got != 8 {
		t.Errorf("%d answers were counted, want 8", got)
	}
}

// releaseSuccesses lets the canary answer well: each answer is a success of its
// own, also one that was heard.
func releaseSuccesses(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	w.begin(r, bpf.Watch{Failures: serverErrors(t)})
	w.shares(steering.Whole, 3)
	d := hold(w, plain())
	for _, code := range []int{200, 404, 503, 304} {
		d.say(asking, httpGET())
		d.say(answering, status(code, "Content-Length: 0"))
	}
	slot, s := w.slot(flowKey(d.from, w.vip, tcp))
	if err := bpf.Tell(w.SiskinHeard, []bpf.Heard{{Slot: slot, OpenedNs: s.Flow.OpenedNs, Backend: 2, Status: 200, Grpc: -1}}); err != nil {
		t.Fatal(err)
	}
	if got, want := successes(w), [2]uint64{0, 4}; got != want {
		t.Errorf("stable and canary have %v successes, want %v", got, want)
	}
}

// successes are what the release in the first room has, of stable and canary.
func successes(w *watched) (sum [2]uint64) {
	w.t.Helper()
	var all []struct{ Of [2]uint64 }
	if err := w.Successes.Lookup(uint32(0), &all); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range all {
		sum[0] += c.Of[0]
		sum[1] += c.Of[1]
	}
	return sum
}

// releaseAlerts lets the canary end handshakes by an alert: an error where
// it broke, none where any client can bring it about, and never a success.
func releaseAlerts(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	w.begin(r, bpf.Watch{Failures: serverErrors(t)})
	w.shares(steering.Whole, 3)
	for _, alert := range []string{"\x02\x50", "\x02\x28", "\x02\x50"} {
		d := hold(w, plain())
		d.say(asking, record(22, "hello"))
		d.say(answering, record(21, alert))
	}
	w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 2})
	if got := successes(w); got != [2]uint64{} {
		t.Errorf("stable and canary have %v successes", got)
	}
}

// releaseHeard tells what was heard: it is counted for the backend, and for the
// release where the flow is still the same.
func releaseHeard(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	before, timed := w.answersOf(2), w.responses(1)
	fails, err := bpf.FailuresOf([]int{503}, []int{14})
	if err != nil {
		t.Fatal(err)
	}
	w.begin(r, bpf.Watch{Failures: fails, Slow: [2]time.Duration{time.Second, time.Second}})
	w.shares(steering.Whole, 3)
	said := func(h bpf.Heard) bpf.Heard {
		d := hold(w, plain())
		slot, s := w.slot(flowKey(d.from, w.vip, tcp))
		h.Slot, h.OpenedNs, h.Backend = slot, s.Flow.OpenedNs, 2
		return h
	}
	const ms = 1_000_000
	gone := said(bpf.Heard{Status: 503, Grpc: -1})
	gone.OpenedNs++
	if err := bpf.Tell(w.SiskinHeard, []bpf.Heard{
		said(bpf.Heard{Status: 200, Grpc: -1, BeganNs: ms, EndedNs: 3 * ms}),
		said(bpf.Heard{Status: 503, Grpc: -1, BeganNs: ms, EndedNs: 3 * ms}),
		said(bpf.Heard{Status: 500, Grpc: -1, BeganNs: ms, EndedNs: 3 * ms}),
		said(bpf.Heard{Status: 200, Grpc: 14}),
		said(bpf.Heard{Status: 200, Grpc: 5}),
		said(bpf.Heard{Status: 200, Grpc: 0, BeganNs: ms, EndedNs: 2003 * ms}),
		said(bpf.Heard{Status: 0, Grpc: -1}),
		said(bpf.Heard{What: bpf.HeardLost}),
		gone,
	}); err != nil {
		t.Fatal(err)
	}
	want := map[bpf.Answer]uint64{bpf.Answer2xx: 1, bpf.Answer5xx: 4, bpf.AnswerGRPCError: 2, bpf.AnswerGRPCOK: 1, bpf.AnswerLost: 1, bpf.AnswerFailed: 3}
	got := map[bpf.Answer]uint64{}
	for i, n := range w.answersOf(2).Of {
		if n -= before.Of[i]; n > 0 {
			got[bpf.Answer(i)] = n
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if n := w.responses(1) - timed; n != 4 {
		t.Errorf("%d response times, want 4", n)
	}
	w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 3})
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 1})
}

func TestFailures(t *testing.T) {
	f, err := bpf.FailuresOf([]int{400, 463, 464, 599}, []int{1, 16})
	if err != nil {
		t.Fatal(err)
	}
	for s := range 1000 {
		if want := s == 400 || s == 463 || s == 464 || s == 599; f.Status(s) != want {
			t.Errorf("status %d: %v", s, f.Status(s))
		}
	}
	for code := -1; code < 40; code++ {
		if want := code == 1 || code == 16; f.GRPC(code) != want {
			t.Errorf("grpc-status %d: %v", code, f.GRPC(code))
		}
	}
	for _, bad := range [][2][]int{{{399}, nil}, {{600}, nil}, {nil, {0}}, {nil, {17}}} {
		if _, err := bpf.FailuresOf(bad[0], bad[1]); err == nil {
			t.Errorf("%v was taken", fmt.Sprint(bad))
		}
	}
}

// releaseWaits tells of requests that wait. One is slow only where all that was
// handed over of its connection is known, and all that the server has said was
// read: else its answer may be there, and the daemon behind.
func releaseWaits(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{1, 1}})
	w.shares(steering.Whole, 3)
	for i, c := range []struct {
		what  string
		since int64 // before now
		heard [2]uint32
		early bool // a segment of the server's, with a hole before it
		again bool // another connection has the slot
		slow  bool
	}{
		{"all is known", 1000, [2]uint32{2, 1}, false, false, true},
		{"it waits not for so long", -1e9, [2]uint32{2, 1}, false, false, false},
		{"a request is not known", 1000, [2]uint32{1, 1}, false, false, false},
		{"an answer is not known", 1000, [2]uint32{2, 0}, false, false, false},
		{"the server was not read", 1000, [2]uint32{2, 1}, true, false, false},
		{"it is another connection", 1000, [2]uint32{2, 1}, false, true, false},
	} {
		d := hold(w, plain())
		d.say(asking, http2.ClientPreface+question(1)+question(3))
		d.say(answering, "\x00\x00\x00\x01\x04\x00\x00\x00\x01")
		if c.early {
			d.segment(answering, d.sent[answering]+100, "early")
		}
		slot, s := w.slot(flowKey(d.from, w.vip, tcp))
		if s.Flow.RequestNs != 0 {
			t.Errorf("%s: the kernel says that a request waits", c.what)
		}
		h := bpf.Heard{Slot: slot, OpenedNs: s.Flow.OpenedNs, Backend: 2, BeganNs: uint64(bpf.Now() - c.since), Heard: c.heard, What: bpf.HeardWaiting}
		if c.again {
			h.OpenedNs++
		}
		before := w.answersOf(2)
		for range 2 {
			if err := bpf.Tell(w.SiskinHeard, []bpf.Heard{h}); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.flow(flowKey(d.from, w.vip, tcp)).Late != 0; got != c.slow {
			t.Errorf("%s: the request is slow: %v", c.what, got)
		}
		if after := w.answersOf(2); after != before {
			t.Errorf("case %d: counted %v, before %v", i, after.Of, before.Of)
		}
	}
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 1})
}

// releaseHangs lets the canary answer the second of three streams alone. What the
// decoder says of the first one, and of a client that gives up, the kernel
// believes: both number the pieces alike.
func releaseHangs(t *testing.T, w *watched, r *bpf.Releases) {
	t.Helper()
	w.begin(r, bpf.Watch{Failures: serverErrors(t), Slow: [2]time.Duration{1, 1}})
	w.shares(steering.Whole, 3)
	pieces, decoder := w.pieces(), streams.New(streams.Limits{})
	d := hold(w, plain())
	look := func() (began uint64) {
		for pieces.Waiting() > 0 {
			p, err := pieces.Read()
			if err != nil {
				t.Fatal(err)
			}
			way := streams.ToServer
			if p.ToClient {
				way = streams.ToClient
			}
			conn := streams.Conn{Slot: p.Slot, Backend: p.Backend, OpenedNS: p.OpenedNS}
			decoder.Feed(streams.Piece{Conn: conn, Way: way, Serial: p.Serial, NS: p.NS, Lost: p.Lost, End: p.Over, Data: p.Data})
		}
		for _, wait := range decoder.Waits(uint64(bpf.Now())) {
			if wait.Conn.OpenedNS != w.flow(flowKey(d.from, w.vip, tcp)).OpenedNs {
				continue
			}
			began = wait.BeganNS
			if err := bpf.Tell(w.SiskinHeard, []bpf.Heard{{
				Slot: wait.Conn.Slot, OpenedNs: wait.Conn.OpenedNS, BeganNs: began, Heard: wait.Heard, What: bpf.HeardWaiting,
			}}); err != nil {
				t.Fatal(err)
			}
		}
		return began
	}
	late := func() uint32 { return w.flow(flowKey(d.from, w.vip, tcp)).Late }
	d.say(answering, settings())
	d.say(asking, http2.ClientPreface+settings()+question(1))
	d.say(asking, question(3)+question(5)+question(1))
	d.say(answering, "\x00\x00\x01\x01\x04\x00\x00\x00\x03\x88")
	first := look()
	if first == 0 || late() != uint32(first) {
		t.Errorf("the request of %d hangs, and %d is slow", first, late())
	}
	d.say(asking, "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08")
	if next := look(); next <= first || late() != uint32(next) {
		t.Errorf("the request of %d hangs now, and %d is slow", next, late())
	}
	d.resets(asking)
	if began := look(); began != 0 {
		t.Errorf("the client is gone, and its request of %d waits", began)
	}
	w.wantBooked(r, bpf.OutcomeSlow, map[bpf.Outcome]uint64{{Version: 1, Epoch: 3, Step: 1}: 1})
}
