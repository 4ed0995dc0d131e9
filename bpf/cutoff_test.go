package bpf_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// TestRootCutoffByTheKernel lets a breaker trip while connections are open on the
// canary: the kernel does to them what was armed, with nobody there. The end of
// a lease is no verdict: they go on.
func TestRootCutoffByTheKernel(t *testing.T) {
	cases := []struct {
		name     string
		versions bpf.Slots
		grace    time.Duration
		expires  bool // the lease, and the breaker does not trip
		cut      bool
	}{
		{"nothing was armed", 0, 0, false, false},
		{"at once", bpf.NonStable, 0, false, true},
		{"another version at once", bpf.SlotsOf(2), 0, false, false},
		{"with a deadline", bpf.NonStable, time.Hour, false, false},
		{"the end of a lease", bpf.NonStable, 0, true, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eachHook(t, nil, func(t *testing.T, w *watched) {
				cutoffs := w.cutoffs()
				cutoffs.Arm(0, c.versions, c.grace)
				w.begin(w.releases(), bpf.Watch{Limit: analysis.BreakerError})
				w.leases.Set(0, ago(-time.Hour))
				w.shares(steering.Whole, 3)
				w.open(w.client, w.vip, w.canary)
				failing := w.newcomer()
				w.connect(failing)
				before := bpf.Now()
				if c.expires {
					w.leases.Set(0, ago(time.Nanosecond))
					w.connect(w.newcomer())
				} else {
					refuse(w, failing, w.canary)
				}
				after := bpf.Now()
				if !w.words.Load(0).IsZero() {
					t.Fatal("the kernel took nothing back")
				}

				got := cutoffs.Load(0)
				if c.versions == 0 || c.expires {
					if got.Versions != 0 || got.FromNs != 0 || len(cutoffs.InForce()) > 0 {
						t.Fatalf("a cutoff is in force: %+v", got)
					}
				} else if at := int64(got.OpenedNs); at < before || at > after || got.Versions != uint32(c.versions) ||
					got.FromNs != got.OpenedNs+uint64(c.grace) {
					t.Fatalf("the cutoff is %+v, it began between %d and %d", got, before, after)
				}
				flow := w.ask(packet{src: w.client, dst: w.vip, flags: ack, seq: isn + 1, ack: serverISN + 1, payload: hello})
				if got := flow.Flags&bpf.FlowCut != 0; got != c.cut {
					t.Errorf("the connection is cut: %v, want %v", got, c.cut)
				}
				resets := uint64(0)
				if c.cut {
					resets = 1
				}
				if got := cutoffs.Load(0); got.Resets != resets || (got.Took() > 0) != c.cut {
					t.Errorf("the cutoff has counted %+v, want %d", got, resets)
				}
			})
		})
	}
}

// TestRootCutoffsBeginAndEnd follows what is in force.
func TestRootCutoffsBeginAndEnd(t *testing.T) {
	c := newRig(t, nil).cutoffs()
	if words := c.InForce(); words != nil {
		t.Fatalf("new maps have cutoffs of the words %v in force", words)
	}
	c.Begin(3, bpf.SlotsOf(0), 0)
	if words := c.InForce(); words != nil {
		t.Fatalf("stable is cut off: words %v", words)
	}
	first := c.Begin(3, bpf.SlotsOf(1), time.Hour)
	c.Begin(5, bpf.NonStable, 0)
	second := c.Begin(3, bpf.SlotsOf(0, 2), time.Minute)
	got := c.Load(3)
	if want := uint32(bpf.SlotsOf(1, 2)); got.Versions != want || second < first ||
		got.OpenedNs != uint64(second) || got.FromNs != uint64(second)+uint64(time.Minute) {
		t.Fatalf("two cutoffs of a word give %+v, the second began at %d", got, second)
	}
	for _, f := range []struct {
		version uint8
		opened  uint64
		means   bool
	}{{0, 1, false}, {1, 1, true}, {2, uint64(second) - 1, true}, {2, uint64(second), false}, {3, 1, false}} {
		if got.Means(bpf.Flow{Version: f.version, OpenedNs: f.opened}) != f.means {
			t.Errorf("a flow of version %d, opened at %d: want %v", f.version, f.opened, f.means)
		}
	}
	if words := c.InForce(); len(words) != 2 || words[0] != 3 || words[1] != 5 {
		t.Fatalf("cutoffs of the words %v are in force, want 3 and 5", words)
	}
	c.End(3)
	c.End(3)
	c.End(4)
	if words := c.InForce(); len(words) != 1 || words[0] != 5 {
		t.Fatalf("cutoffs of the words %v are in force, want 5", words)
	}
	c.End(5)
	if words := c.InForce(); words != nil {
		t.Fatalf("cutoffs of the words %v are in force at the end", words)
	}
}

// TestRootCutoffsAtATime begins and ends cutoffs from several sides: how many are
// in force must come out right, or packets are looked at for nothing, or not.
func TestRootCutoffsAtATime(t *testing.T) {
	r := newRig(t, nil)
	c := r.cutoffs()
	var group sync.WaitGroup
	for i := range uint64(4) {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(i, 0))
			for range 20000 {
				if word := rng.Uint32N(2); rng.IntN(2) == 0 {
					c.Begin(word, bpf.NonStable, 0)
				} else {
					c.End(word)
				}
			}
		})
	}
	group.Wait()
	var inForce uint64
	if err := r.Cutting.Lookup(uint32(0), &inForce); err != nil {
		t.Fatal(err)
	}
	if words := c.InForce(); inForce != uint64(len(words)) {
		t.Errorf("%d cutoffs are counted, of the words %v they are in force", inForce, words)
	}
}
