package bpf_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// An ordeal lets the clients of a release meet successes and failures. It has one
// client of either version that asks by UDP whenever there is to be a success.
type ordeal struct {
	*watched
	r       *bpf.Releases
	served  [2]netip.AddrPort // stable's, the canary's
	servers [2]netip.AddrPort
	erring  [2]map[uint64]netip.AddrPort
}

// newOrdeal begins a release at 50 %.
func newOrdeal(w *watched, r *bpf.Releases, watch bpf.Watch) *ordeal {
	w.t.Helper()
	w.shares(5000, 0) // of an epoch that none begins with
	w.begin(r, watch)
	w.shares(5000, 1)
	o := &ordeal{watched: w, r: r, servers: [2]netip.AddrPort{w.stable, w.canary}}
	for side := range o.served {
		o.served[side] = w.newcomerOn(uint8(side))
		o.erring[side] = map[uint64]netip.AddrPort{}
	}
	return o
}

// watchFor is what the kernel watches for by a rule of the breaker.
func watchFor(rule analysis.BreakerRule) bpf.Watch {
	return bpf.Watch{Limit: uint32(rule.Limit), Success: uint32(rule.Success)}
}

// newcomerOn returns a client that is given a version at 50 %.
func (w *watched) newcomerOn(version uint8) netip.AddrPort {
	word, err := steering.MakeWord([4]steering.Share{5000}, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	for {
		c := w.newcomer()
		if word.Pick(steering.ClientKey(c.Addr()).Bucket(rigSalt)) == version {
			return c
		}
	}
}

func side(canary bool) int {
	if canary {
		return 1
	}
	return 0
}

// fail lets the server of a version refuse a client, known by its number.
func (o *ordeal) fail(canary bool, client uint64) {
	o.t.Helper()
	at := side(canary)
	c, ok := o.erring[at][client]
	if !ok {
		c = o.newcomerOn(uint8(at))
	}
	o.erring[at][client] = nextPort(c)
	if f := o.connect(c); f.Version != uint8(at) {
		o.t.Fatalf("%s is on version %d, want %d", c, f.Version, at)
	}
	refuse(o.watched, c, o.servers[at])
}

func (o *ordeal) succeed(canary bool, n int) {
	o.t.Helper()
	at := side(canary)
	for range n {
		o.datagram(o.served[at])
		o.answer(o.served[at], o.servers[at])
	}
}

func (o *ordeal) breaker() bpf.Breaker {
	o.t.Helper()
	b, err := o.r.Breaker(0)
	if err != nil {
		o.t.Fatal(err)
	}
	return b
}

// levels compares the buckets, and whether the breaker has tripped.
func (o *ordeal) levels(what string, stable, canary uint32, tripped bool) {
	o.t.Helper()
	b := o.breaker()
	if b.Stable.Level != stable || b.Version.Level != canary || b.Tripped != tripped {
		o.t.Errorf("%s: stable's bucket is at %d, the canary's at %d, tripped: %v; want %d, %d, %v",
			what, b.Stable.Level, b.Version.Level, b.Tripped, stable, canary, tripped)
	}
	word, lease := o.words.Load(0), o.leases.Load(0)
	if word.IsZero() != tripped || lease.Tripped() != tripped {
		o.t.Errorf("%s: the word is %#x, the lease %#x", what, word, lease)
	}
}

// TestRootBreaker has the sequences by which the rule was found to be right.
func TestRootBreaker(t *testing.T) {
	rule := analysis.BreakerRuleFor(0, 5)
	cases := []struct {
		name string
		play func(o *ordeal)
	}{
		{"five errors", func(o *ordeal) {
			for i := range uint64(4) {
				o.fail(true, i)
				o.levels("an error", 0, 90*uint32(i+1), false)
			}
			before := bpf.Now()
			o.fail(true, 4)
			o.levels("the fifth error", 0, 450, true)
			b := o.breaker()
			if b.Version.Errors != 5 || b.Monotonic < before || b.Monotonic > bpf.Now() || b.Boot == 0 || b.Boot > bpf.BootNow() {
				o.t.Errorf("evidence %+v", b)
			}
			if got := o.words.Load(0).Epoch(); got != 2 {
				o.t.Errorf("it happened in epoch %d", got)
			}
			for range 5 {
				c := o.newcomerOn(1)
				if f := o.connect(c); f.Version != 0 || f.Epoch != 2 {
					o.t.Errorf("after the trip a client goes to version %d in epoch %d", f.Version, f.Epoch)
				}
				refuse(o.watched, c, o.stable)
			}
			o.levels("stable's errors afterwards", 0, 450, true)
		}},
		{"four errors, 9 successes", func(o *ordeal) {
			for i := range uint64(4) {
				o.fail(true, i)
			}
			o.succeed(true, 9)
			o.levels("9 successes, which wait", 0, 360, false)
			o.fail(true, 4)
			o.levels("the next error", 0, 360, false)
			o.fail(true, 5)
			o.levels("the one after it", 0, 450, true)
		}},
		{"one client", func(o *ordeal) {
			for i := range 31 {
				o.fail(true, 0)
				if o.breaker().Tripped {
					o.t.Fatalf("tripped by error %d of one client", i+1)
				}
			}
			o.fail(true, 0)
			o.levels("its 32nd error", 0, 450, true)
		}},
		{"stable fails too", func(o *ordeal) {
			o.fail(false, 0)
			o.fail(false, 1)
			for i := range uint64(12) {
				o.fail(true, i)
			}
			o.levels("12 errors while stable is at 180", 180, 900, false)
			o.succeed(false, 1)
			o.fail(true, 12)
			o.levels("stable at 170", 170, 900, true)
		}},
		{"a success of stable's is none of the canary's", func(o *ordeal) {
			o.fail(true, 0)
			o.succeed(false, 9)
			o.fail(true, 1)
			o.levels("two errors", 0, 180, false)
		}},
	}
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		r := w.releases()
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) { c.play(newOrdeal(w.of(t), r, watchFor(rule))) })
		}
		t.Run("off", func(t *testing.T) {
			o := newOrdeal(w.of(t), r, bpf.Watch{Success: 10})
			for i := range uint64(12) {
				o.fail(true, i)
			}
			o.levels("12 errors", 0, 0, false)
		})
		t.Run("older flows", func(t *testing.T) {
			w := w.of(t)
			w.shares(steering.Whole, 7)
			var old []netip.AddrPort
			for range 6 {
				old = append(old, w.newcomer())
				w.connect(old[len(old)-1])
			}
			o := newOrdeal(w, r, watchFor(rule))
			for _, c := range old {
				refuse(w, c, w.canary)
			}
			o.levels("6 errors of flows from before the release", 0, 0, false)
		})
	})
}

// TestRootBreakerModel plays random sequences to the kernel and to the model,
// and compares them after each error.
func TestRootBreakerModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	each(t, map[string]any{"flows": uint32(4096)}, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		releases := w.releases()
		for range 20 {
			rule := analysis.BreakerRuleFor(rng.Float64()*.05, 1+rng.IntN(10))
			model := analysis.Breaker{Rule: rule}
			o := newOrdeal(w, releases, watchFor(rule))
			clients := 1 + rng.Uint64N(12)
			for range 60 {
				canary := rng.IntN(3) > 0
				if n := rng.IntN(8); n < 3 {
					o.succeed(canary, n)
					model.Succeed(canary, uint64(n))
					continue
				}
				client := rng.Uint64N(clients)
				o.fail(canary, client)
				model.Err(canary, client)
				c, s := model.Levels()
				o.levels("an error", uint32(s), uint32(c), model.Tripped())
				if model.Tripped() || t.Failed() {
					break
				}
			}
		}
	})
}

// TestRootBreakerTells: who waits for events hears of the trip, and what every
// later weight comes to.
func TestRootBreakerTells(t *testing.T) {
	each(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		events, err := bpf.NewEvents(w.Events)
		if err != nil {
			t.Fatal(err)
		}
		defer events.Close()
		o := newOrdeal(w, w.releases(), watchFor(analysis.BreakerRuleFor(0, 1)))
		w.leases.Set(0, ago(-time.Hour))
		lease := w.leases.Load(0)
		o.fail(true, 0)
		e, err := events.Read()
		if err != nil {
			t.Fatal(err)
		}
		if b := o.breaker(); e.Kind != bpf.BreakerTripped || e.Word != 0 || e.Boot < b.Boot || e.Monotonic < b.Monotonic {
			t.Errorf("the kernel told %+v of %+v", e, b)
		}
		w.shares(steering.Whole, 5)
		if f := w.connect(w.newcomer()); f.Version != 0 || !w.words.Load(0).IsZero() {
			t.Errorf("weights that came after the trip count: version %d", f.Version)
		}
		// By who has not heard of it.
		if _, err := w.leases.Renew(0, lease, ago(-time.Hour)); !errors.Is(err, bpf.ErrLeaseOver) {
			t.Errorf("renewing the lease after the trip: %v", err)
		}
	})
}

// newcomerWithin returns a client whose bucket is among the first of a share.
func (w *watched) newcomerWithin(share steering.Share) netip.AddrPort {
	for {
		c := w.newcomer()
		if steering.ClientKey(c.Addr()).Bucket(rigSalt) < uint16(share) {
			return c
		}
	}
}

const (
	trickle = steering.Whole / 100
	retry   = 300 * time.Millisecond
)

// trying waits until the breaker tries the version again, with a trickle that
// grows while nothing is heard of it.
func (o *ordeal) trying() {
	o.t.Helper()
	o.await("a trial", func() bool { return o.leases.Load(0).Trying() && !o.words.Load(0).IsZero() })
	if share := o.words.Load(0).Shares()[0]; share < trickle || share > 5000 {
		o.t.Errorf("the trial has a share of %d, want %d to 5000", share, trickle)
	}
	if b := o.breaker(); b.Tripped || !o.leases.Load(0).Over() {
		o.t.Errorf("in the trial the breaker is %+v, and the lease %#x", b, o.leases.Load(0))
	}
}

// good lets a client of the trickle be answered often enough.
func (o *ordeal) good(c netip.AddrPort, answers int) {
	o.t.Helper()
	for range answers {
		if f := o.datagram(c); f.Version != 1 {
			o.t.Fatalf("a client of the trickle is on version %d", f.Version)
		}
		o.answer(c, o.canary)
	}
}

// bad refuses a client of the trickle.
func (o *ordeal) bad(c netip.AddrPort) {
	o.t.Helper()
	if f := o.connect(c); f.Version != 1 {
		o.t.Fatalf("a client of the trickle is on version %d", f.Version)
	}
	refuse(o.watched, c, o.canary)
}

// TestRootBreakerTriesAgain: where nobody need be there to roll back, a version
// that has become good has its share back, and one that has not is out again,
// for longer.
func TestRootBreakerTriesAgain(t *testing.T) {
	each(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		releases := w.releases()
		w.start()
		terms := watchFor(analysis.BreakerRuleFor(0, 2))
		terms.Retry = retry
		o := newOrdeal(w, releases, terms)
		tripped := bpf.Now()
		o.fail(true, 0)
		o.fail(true, 1)
		o.levels("two errors", 0, 180, true)
		o.trying()
		if waited := time.Duration(bpf.Now() - tripped); waited < retry {
			t.Errorf("it tried again after %v", waited)
		}

		// An error trips it at once, and it waits twice as long.
		tripped = bpf.Now()
		o.bad(w.newcomerWithin(trickle))
		if !w.words.Load(0).IsZero() || w.leases.Load(0).Trying() || !o.breaker().Tripped {
			t.Errorf("an error in the trial: the word is %#x, the lease %#x", w.words.Load(0), w.leases.Load(0))
		}
		o.trying()
		if waited := time.Duration(bpf.Now() - tripped); waited < 2*retry {
			t.Errorf("it tried again after %v, want %v", waited, 2*retry)
		}

		// One among good answers does when the trial is looked at.
		o.good(w.newcomerWithin(trickle), 19)
		o.bad(w.newcomerWithin(trickle))
		w.await("the end of the second trial", func() bool { return o.breaker().Tripped && w.words.Load(0).IsZero() })
		o.trying()

		o.good(w.newcomerWithin(trickle), 20)
		w.await("the old share", func() bool { return w.words.Load(0).Shares()[0] == 5000 })
		w.await("the end of the trial", func() bool { return w.leases.Load(0) == 0 })
		if b := o.breaker(); b.Tripped || b.Closed != 1 || b.Version.Level != 0 {
			t.Errorf("after a good trial the breaker is %+v", b)
		}

		// It is as good as new, and what was taken is what there was last.
		w.shares(2500, 50)
		o.bad(w.newcomerWithin(trickle))
		o.bad(w.newcomerWithin(trickle))
		o.trying()
		o.good(w.newcomerWithin(trickle), 20)
		w.await("the last share", func() bool { return w.words.Load(0).Shares()[0] == 2500 })
	})
}

// TestRootBreakerStaysOpen: a release that somebody watches does not try again,
// and one that has ended neither.
func TestRootBreakerStaysOpen(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		releases := w.releases()
		w.start()
		for _, ends := range []bool{false, true} {
			terms := watchFor(analysis.BreakerRuleFor(0, 1))
			if ends {
				terms.Retry = 50 * time.Millisecond
			}
			o := newOrdeal(w, releases, terms)
			o.fail(true, 0)
			if ends {
				if err := releases.End(0); err != nil {
					t.Fatal(err)
				}
				w.shares(0, 9)
			}
			lease, word := w.leases.Load(0), w.words.Load(0)
			was := w.ticks()
			w.await("some looks", func() bool { return w.ticks() > was+20 })
			if w.words.Load(0) != word || w.leases.Load(0) != lease || !lease.Over() {
				t.Errorf("the word went from %#x to %#x, the lease from %#x to %#x", word, w.words.Load(0), lease, w.leases.Load(0))
			}
			if !ends {
				if err := releases.End(0); err != nil {
					t.Fatal(err)
				}
			}
			w.leases.Set(0, 0)
		}
	})
}
