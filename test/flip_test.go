package test

import (
	"net/netip"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// Done when 3: under load, once the weight word is stored, the kernel gives
// the canary nothing more. The kernel takes a flow's time before it reads the
// word, so no selection may be younger than the store.
func TestRootFlip(t *testing.T) {
	const trials, rate = 100, 2000
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	f := bed.V4
	stable, canary := greeters(r, f)
	frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
	s.Apply(bed.Service{
		Name: "flip", Proto: "tcp", Affinity: "connection",
		Frontends: []netip.AddrPort{frontend},
		Stable:    []netip.AddrPort{stable.Addr}, Canary: []netip.AddrPort{canary.Addr},
		Weight: "50%",
	})
	load := r.Client.Drive(sweepWorkers, frontend)
	const between = 50 // connections
	for trial := range trials {
		accepted := canary.Accepted.Load()
		if err := load.Await(between); err != nil {
			t.Fatal(err)
		}
		if canary.Accepted.Load() == accepted {
			t.Errorf("trial %d: the canary had nothing before the flip", trial)
		}
		flip := s.Weight("flip", "0")
		if err := load.Await(between); err != nil {
			t.Fatal(err)
		}
		last := s.Version("flip", "canary").LastSelectedNs
		if last == 0 || last > uint64(flip.StoredAfterNs) {
			t.Errorf("trial %d: the canary was selected %d ns after the store", trial, int64(last)-flip.StoredAfterNs)
		}
		s.Weight("flip", "50%")
	}
	got := load.Rate()
	names := load.Stop()
	t.Logf("%.0f connections/s, answers %v", got, names)
	if got < rate {
		t.Errorf("%.0f connections/s are too few for the test to say something, want %d", got, rate)
	}
	if failed := load.Failed.Load(); failed > 0 {
		t.Errorf("%d connections failed: %v", failed, load.Err())
	}
	for _, server := range []*bed.Server{stable, canary} {
		if accepted := server.Accepted.Load(); accepted != names[server.Name] {
			t.Errorf("%s accepted %d connections and answered %d", server.Name, accepted, names[server.Name])
		}
	}
}
