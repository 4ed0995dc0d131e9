package bpf_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// TestRootLease gives all new connections to the canary under leases of every
// kind, and looks at who gets them, and at what stands in the maps then.
func TestRootLease(t *testing.T) {
	const epoch = 255 // the next one is 0
	cases := []struct {
		name  string
		lease func(w *watched)
		over  bool
	}{
		{"none", func(w *watched) { w.leases.Set(0, 0) }, false},
		{"valid", func(w *watched) { w.leases.Set(0, ago(-time.Hour)) }, false},
		{"over", func(w *watched) { w.leases.Set(0, ago(time.Nanosecond)) }, true},
		{"latched, of a deadline to come", func(w *watched) { w.putLease(ago(-time.Hour), 1<<63) }, true},
		{"tripped, without a deadline", func(w *watched) { w.putLease(0, 1<<62) }, true},
	}
	eachHook(t, nil, func(t *testing.T, w *watched) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				w := w.of(t)
				c.lease(w)
				word := w.shares(steering.Whole, epoch)
				before := w.leases.Load(0)
				flow, want := w.connect(w.newcomer()), word
				if c.over {
					want = word.Zeroed()
				}
				if got := w.words.Load(0); got != want {
					t.Errorf("the word is %#x, want %#x", got, want)
				}
				if version := want.Pick(0); flow.Version != version || flow.Epoch != want.Epoch() {
					t.Errorf("the flow went to version %d in epoch %d, want %d in %d", flow.Version, flow.Epoch, version, want.Epoch())
				}
				got := w.leases.Load(0)
				if got.Over() != c.over || got.Deadline() != before.Deadline() {
					t.Errorf("the lease is %#x, it was %#x", got, before)
				}
				_, err := w.leases.Renew(0, before, ago(-time.Minute))
				if c.over != errors.Is(err, bpf.ErrLeaseOver) || !c.over && err != nil {
					t.Errorf("renewing it: %v", err)
				}
			})
		}
	})
}

func (w *watched) putLease(deadline int64, bits uint64) {
	w.t.Helper()
	w.put(w.Leases, uint32(0), uint64(deadline)|bits)
}

// TestRootLeaseStaysOver: weights that come after the end change nothing, and
// retries of a handshake go to stable too. Who holds a connection keeps it.
func TestRootLeaseStaysOver(t *testing.T) {
	eachHook(t, nil, func(t *testing.T, w *watched) {
		events, err := bpf.NewEvents(w.Events)
		if err != nil {
			t.Fatal(err)
		}
		defer events.Close()
		w.leases.Set(0, ago(-time.Hour))
		w.shares(steering.Whole, 3)
		w.open(w.client, w.vip, w.canary)
		asking := w.newcomer()
		if f := w.connect(asking); f.Version != 1 {
			t.Fatalf("under a lease the canary has its share: %+v", f)
		}
		w.leases.Set(0, ago(time.Nanosecond))
		before := bpf.Now()
		if f := w.connect(asking); f.Version != 0 || f.Epoch != 4 {
			t.Errorf("the SYN that came again went to version %d in epoch %d", f.Version, f.Epoch)
		}
		for epoch := range uint8(3) {
			w.shares(steering.Whole, 10+epoch)
			if f := w.connect(w.newcomer()); f.Version != 0 {
				t.Errorf("the canary has a share although the lease is over: %+v", f)
			}
			if got := w.words.Load(0); !got.IsZero() || got.Epoch() != 11+epoch {
				t.Errorf("the word is %#x", got)
			}
		}
		p := packet{src: w.client, dst: w.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}
		if f := w.ask(p); f.Version != 1 {
			t.Errorf("the open connection went to version %d", f.Version)
		}
		e, err := events.Read()
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != bpf.LeaseExpired || e.Word != 0 || e.Monotonic < before || e.Monotonic > bpf.Now() {
			t.Errorf("the kernel told %+v", e)
		}
	})
}

// TestRootLeaseTimer: the timer latches the end where there is no traffic, and
// no flow.
func TestRootLeaseTimer(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		for _, share := range []steering.Share{0, steering.Whole} {
			word := w.shares(share, 7)
			w.put(w.Rooms, uint32(15), uint64(0+1)) // the last one
			lease := bpf.Lease(ago(-300 * time.Millisecond))
			w.leases.Set(0, lease.Deadline())
			w.start()
			w.await("the end of the lease", func() bool { return w.leases.Load(0).Over() })
			now := bpf.BootNow()
			if now < lease.Deadline() {
				t.Fatal("the lease ended early")
			}
			t.Logf("latched %v after its end at most", time.Duration(now-lease.Deadline()))
			w.await("the end of the weights", func() bool { return w.words.Load(0) == word.Zeroed() })
			// A word that nobody has under release is nobody's business.
			if _, err := w.leases.Renew(0, lease, ago(-time.Hour)); !errors.Is(err, bpf.ErrLeaseOver) {
				t.Errorf("renewing it: %v", err)
			}
		}
	})
}

// TestRootLeaseRenewals lets renewals, new connections and the timer meet at
// the end of a lease, again and again. Whoever wins, they agree: a renewal that
// succeeded is not undone before its deadline, and none succeeds after the end.
func TestRootLeaseRenewals(t *testing.T) {
	const length = 2 * time.Millisecond
	each(t, nil, func(t *testing.T, r *rig, f family) {
		w := watch(t, r, f, r.SiskinIngress)
		w.put(w.Rooms, uint32(0), uint64(0+1))
		w.start()
		again := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}.frame()
		for round := range 40 {
			word := w.shares(steering.Whole, uint8(round))
			w.leases.Set(0, ago(-length))
			var renewing sync.WaitGroup
			var last bpf.Lease
			renewing.Go(func() {
				last = w.leases.Load(0)
				for range 20 {
					// Now and then too late.
					time.Sleep(length * time.Duration(round%4+1) / 4)
					lease, err := w.leases.Renew(0, last, ago(-length))
					if errors.Is(err, bpf.ErrLeaseOver) {
						return
					}
					if err != nil {
						t.Errorf("renewing: %v", err)
						return
					}
					last = lease
				}
			})
			for deadline := time.Now().Add(20 * time.Second); !w.leases.Load(0).Over() && time.Now().Before(deadline); {
				w.run(w.program, again) // it is chosen again each time
			}
			renewing.Wait()
			w.await("the end", func() bool { return w.leases.Load(0).Over() && w.words.Load(0) == word.Zeroed() })
			if now := w.leases.Load(0); now.Deadline() != last.Deadline() {
				t.Fatalf("the lease ended at %d, renewed to %d", now.Deadline(), last.Deadline())
			}
		}
	})
}
