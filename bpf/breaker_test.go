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
func newOrdeal(w *watched, r *bpf.Releases, rule analysis.BreakerRule) *ordeal {
	w.t.Helper()
	w.shares(5000, 0) // of an epoch that none begins with
	w.begin(r, bpf.Watch{Limit: uint32(rule.Limit), Success: uint32(rule.Success)})
	w.shares(5000, 1)
	o := &ordeal{watched: w, r: r, servers: [2]netip.AddrPort{w.stable, w.canary}}
	for side := range o.served {
		o.served[side] = w.newcomerOn(uint8(side))
		o.erring[side] = map[uint64]netip.AddrPort{}
	}
	return o
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
			t.Run(c.name, func(t *testing.T) { c.play(newOrdeal(w.of(t), r, rule)) })
		}
		t.Run("off", func(t *testing.T) {
			o := newOrdeal(w.of(t), r, analysis.BreakerRule{Success: 10})
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
			o := newOrdeal(w, r, rule)
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
			o := newOrdeal(w, releases, rule)
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
		o := newOrdeal(w, w.releases(), analysis.BreakerRuleFor(0, 1))
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
