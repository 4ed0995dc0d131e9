package bpf_test

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// releases opens the maps of releases.
func (w *watched) releases() *bpf.Releases {
	w.t.Helper()
	all := w.maps()
	r, err := bpf.NewReleases(func(name string) *ebpf.Map { return all[name] })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return r
}

// begin starts a release on the word, in step 1; one that runs is ended.
func (w *watched) begin(r *bpf.Releases, watch bpf.Watch) {
	w.t.Helper()
	if err := r.End(0); err != nil {
		w.t.Fatal(err)
	}
	watch.Version, watch.Step = 1, 1
	if _, err := r.Begin(0, watch); err != nil {
		w.t.Fatal(err)
	}
	w.leases.Set(0, 0)
}

// booked returns the outcomes of a kind, with nothing in the keys but what is
// compared: version, epoch, prev, step.
func (w *watched) booked(r *bpf.Releases, kind bpf.OutcomeKind) map[bpf.Outcome]uint64 {
	w.t.Helper()
	all, err := r.Outcomes(0)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[bpf.Outcome]uint64{}
	for key, n := range all {
		if key.Kind == uint8(kind) {
			key.Kind = 0
			out[key] = n
		}
	}
	return out
}

func (w *watched) wantBooked(r *bpf.Releases, kind bpf.OutcomeKind, want map[bpf.Outcome]uint64) {
	w.t.Helper()
	if got := w.booked(r, kind); !maps.Equal(got, want) {
		w.t.Errorf("booked\n got  %+v\n want %+v", got, want)
	}
}

// A failure is a way in which a server fails a client that has sent a SYN.
type failure struct {
	name string
	fail func(w *watched, client, server netip.AddrPort)
}

func (w *watched) reply(p packet) { w.t.Helper(); w.run(w.SiskinEgress, p.frame()) }

// shake ends the handshake of a client that has sent its SYN, and lets it ask.
func (w *watched) shake(client, server netip.AddrPort) {
	w.t.Helper()
	w.reply(packet{src: server, dst: client, flags: syn | ack, seq: serverISN, ack: isn + 1})
	w.ask(packet{src: client, dst: w.vip, flags: ack, seq: isn + 1, ack: serverISN + 1, payload: hello})
}

func refuse(w *watched, client, server netip.AddrPort) {
	w.t.Helper()
	w.reply(packet{src: server, dst: client, flags: rst | ack, ack: isn + 1})
}

func failures() []failure {
	return []failure{
		{"refused", refuse},
		{"reset before the answer", func(w *watched, client, server netip.AddrPort) {
			w.t.Helper()
			w.shake(client, server)
			w.reply(packet{src: server, dst: client, flags: rst, seq: serverISN + 1})
		}},
		{"timed out", func(w *watched, client, _ netip.AddrPort) {
			w.t.Helper()
			w.connect(client)
		}},
		{"unreachable", func(w *watched, client, server netip.AddrPort) {
			w.t.Helper()
			kind := icmpKinds(w.family)[1]
			about := packet{src: client, dst: server, flags: syn, seq: isn}
			w.run(w.SiskinEgress, icmpError(server.Addr(), client.Addr(), kind[0], kind[1], about, 8))
		}},
	}
}

func nextPort(c netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(c.Addr(), c.Port()+1) }

// TestRootOutcomeErrors lets servers fail clients over two steps of a release,
// and compares what is booked. A client's second SYN counts as its third here.
func TestRootOutcomeErrors(t *testing.T) {
	eachHook(t, map[string]any{"timeout_ns": uint64(0), "flows": uint32(512)}, func(t *testing.T, w *watched) {
		r := w.releases()
		for _, c := range failures() {
			t.Run(c.name, func(t *testing.T) {
				w := w.of(t)
				fail := func(client netip.AddrPort) {
					t.Helper()
					w.connect(client)
					c.fail(w, client, w.canary)
				}
				w.shares(steering.Whole, 8)
				before := w.newcomer()
				w.connect(before)
				w.begin(r, bpf.Watch{})
				w.shares(steering.Whole, 9)
				c.fail(w, before, w.canary) // its flow is older than the release
				first, second, late := w.newcomer(), w.newcomer(), w.newcomer()
				w.connect(late)
				fail(first)
				fail(nextPort(first))
				fail(second)
				w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{{Version: 1, Epoch: 9, Step: 1}: 2})

				r.SetStep(0, 2)
				w.shares(steering.Whole, 10)
				fail(nextPort(nextPort(first)))
				fail(w.newcomer())
				c.fail(w, late, w.canary)
				w.shares(0, 11)
				stables := w.newcomer()
				w.connect(stables)
				c.fail(w, stables, w.stable)
				w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{
					{Version: 1, Epoch: 9, Step: 1}:           2,
					{Version: 1, Epoch: 10, Step: 2, Prev: 1}: 1,
					{Version: 1, Epoch: 10, Step: 2}:          1,
					{Version: 1, Epoch: 9, Step: 2}:           1,
					{Version: 0, Epoch: 11, Step: 2}:          1,
				})
			})
		}
	})
}

// TestRootOutcomeNone: what clients do themselves is no failure, and neither is
// what comes after an answer.
func TestRootOutcomeNone(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		r := w.releases()
		w.begin(r, bpf.Watch{})
		w.shares(steering.Whole, 9)
		abort := w.newcomer()
		w.connect(abort)
		w.ask(packet{src: abort, dst: w.vip, flags: rst, seq: isn + 1})
		retry := w.newcomer()
		w.connect(retry)
		w.connect(retry) // the second SYN, a moment later
		done := w.newcomer()
		w.connect(done)
		w.shake(done, w.canary)
		w.reply(packet{src: w.canary, dst: done, flags: ack, seq: serverISN + 1, ack: isn + 6, payload: hello})
		w.reply(packet{src: w.canary, dst: done, flags: rst, seq: serverISN + 6})
		w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{})
	})
}

// TestRootOutcomeUnit: who is one client depends on what was randomised.
func TestRootOutcomeUnit(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		r := w.releases()
		neighbour := func(c netip.AddrPort) netip.AddrPort { // the next address
			return netip.AddrPortFrom(c.Addr().Next(), c.Port())
		}
		for _, c := range []struct {
			name         string
			byConnection bool
			other        func(netip.AddrPort) netip.AddrPort
			want4, want6 uint64
		}{
			{"two connections", false, nextPort, 1, 1},
			{"two connections, by connection", true, nextPort, 2, 2},
			{"two addresses", false, neighbour, 2, 1}, // in one IPv6 network
			{"two addresses, by connection", true, neighbour, 2, 2},
		} {
			t.Run(c.name, func(t *testing.T) {
				w := w.of(t)
				w.begin(r, bpf.Watch{ByConnection: c.byConnection})
				w.shares(steering.Whole, 9)
				one := w.newcomer()
				for range 3 {
					w.newcomer()
				}
				for _, client := range []netip.AddrPort{one, c.other(one)} {
					w.connect(client)
					refuse(w, client, w.canary)
				}
				want := c.want4
				if one.Addr().Is6() {
					want = c.want6
				}
				w.wantBooked(r, bpf.OutcomeError, map[bpf.Outcome]uint64{{Version: 1, Epoch: 9, Step: 1}: want})
			})
		}
	})
}

// TestRootOutcomeSeen counts clients by their first flow, where its version was
// drawn by weight.
func TestRootOutcomeSeen(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		r := w.releases()
		w.connect(w.newcomer())
		w.begin(r, bpf.Watch{})
		w.shares(0, 1)
		w.connect(w.newcomer()) // nothing was drawn
		want := map[bpf.Outcome]uint64{}
		var clients []netip.AddrPort
		for i := range uint8(3) {
			r.SetStep(0, i+1)
			w.shares(5000, 2+i)
			for range 10 {
				clients = append(clients, w.newcomer())
			}
			for _, c := range clients[10*i:] {
				want[bpf.Outcome{Version: w.connect(c).Version, Epoch: 2 + i, Step: i + 1}]++
			}
			for _, c := range clients {
				w.connect(nextPort(c))
			}
		}
		w.leases.Set(0, ago(time.Nanosecond))
		w.connect(w.newcomer())
		w.leases.Set(0, 0)
		w.shares(steering.Whole, 9)
		w.frontend(1, w.vip, tcp, 0, 1) // the canary has no backend now
		w.connect(w.newcomer())
		w.wantBooked(r, bpf.OutcomeSeen, want)
	})
}

// datagram lets a client ask by UDP, and answer lets its server answer.
func (w *watched) datagram(client netip.AddrPort) bpf.Flow {
	w.t.Helper()
	return w.ask(packet{src: client, dst: w.vip, proto: udp, payload: hello})
}

func (w *watched) answer(client, server netip.AddrPort) {
	w.t.Helper()
	w.reply(packet{src: server, dst: client, proto: udp, payload: hello})
}

// TestRootOutcomeSlow measures answers against thresholds that they all miss,
// or none does.
func TestRootOutcomeSlow(t *testing.T) {
	const never, always = time.Hour, time.Nanosecond
	one := map[bpf.Outcome]uint64{{Version: 1, Epoch: 9, Step: 1}: 1}
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		r := w.releases()
		for _, c := range []struct {
			name string
			slow [2]time.Duration
			want map[bpf.Outcome]uint64
		}{
			{"nothing is watched", [2]time.Duration{}, nil},
			{"stable is watched", [2]time.Duration{always, 0}, nil},
			{"fast enough", [2]time.Duration{always, never}, nil},
			{"slow", [2]time.Duration{never, always}, one},
		} {
			t.Run(c.name, func(t *testing.T) {
				w := w.of(t)
				w.shares(steering.Whole, 8)
				before := w.newcomer()
				w.datagram(before)
				w.begin(r, bpf.Watch{Slow: c.slow})
				w.shares(steering.Whole, 9)
				client := w.newcomer()
				w.datagram(client)
				w.answer(client, w.canary)
				w.answer(client, w.canary) // to no request
				w.answer(before, w.canary)
				w.wantBooked(r, bpf.OutcomeSlow, c.want)
			})
		}
	})
}

// TestRootOutcomePending: a request that nobody answers is slow before its
// answer comes, and then not again.
func TestRootOutcomePending(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		rel := w.releases()
		w.start()
		w.begin(rel, bpf.Watch{Slow: [2]time.Duration{0, 20 * time.Millisecond}})
		w.shares(steering.Whole, 9)
		client := w.newcomer()
		first := map[bpf.Outcome]uint64{{Version: 1, Epoch: 9, Step: 1}: 1}
		w.datagram(client)
		w.await("the request to be slow", func() bool { return len(w.booked(rel, bpf.OutcomeSlow)) > 0 })
		w.wantBooked(rel, bpf.OutcomeSlow, first)
		rel.SetStep(0, 2)
		ticks := w.ticks()
		w.await("another round", func() bool { return w.ticks() > ticks+80 })
		w.answer(client, w.canary)
		w.wantBooked(rel, bpf.OutcomeSlow, first)

		w.datagram(client)
		w.await("the next request to be slow", func() bool { return len(w.booked(rel, bpf.OutcomeSlow)) > 1 })
		w.wantBooked(rel, bpf.OutcomeSlow, map[bpf.Outcome]uint64{
			{Version: 1, Epoch: 9, Step: 1}:          1,
			{Version: 1, Epoch: 9, Step: 2, Prev: 1}: 1,
		})
	})
}

// ticks tells how often the timer has run.
func (w *watched) ticks() uint64 {
	w.t.Helper()
	var clock bpf.Clockwork
	if err := w.Aging.Lookup(uint32(0), &clock); err != nil {
		w.t.Fatal(err)
	}
	return clock.Ticks
}

// TestRootOutcomeExpired: a handshake that nobody goes on with, and nobody
// answers, is a failure by the timer.
func TestRootOutcomeExpired(t *testing.T) {
	each(t, map[string]any{"idle_syn": uint32(1)}, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		rel := w.releases()
		w.begin(rel, bpf.Watch{})
		w.shares(steering.Whole, 9)
		w.connect(w.newcomer())
		w.start()
		w.await("the timeout", func() bool { return len(w.booked(rel, bpf.OutcomeError)) > 0 })
		w.wantBooked(rel, bpf.OutcomeError, map[bpf.Outcome]uint64{{Version: 1, Epoch: 9, Step: 1}: 1})
		if n := w.tally(2).Timeout; n != 1 {
			t.Errorf("%d timeouts", n)
		}
	})
}

// TestRootOutcomeLost: what finds no room is missed, but not in silence.
func TestRootOutcomeLost(t *testing.T) {
	each(t, map[string]any{"outcomes": uint32(1)}, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		rel := w.releases()
		w.begin(rel, bpf.Watch{})
		w.shares(steering.Whole, 9)
		client := w.newcomer()
		w.connect(client) // seen first
		refuse(w, client, w.canary)
		w.wantBooked(rel, bpf.OutcomeError, map[bpf.Outcome]uint64{})
		if b, err := rel.Breaker(0); err != nil || b.Lost != 1 {
			t.Errorf("%+v: %v", b, err)
		}
	})
}
