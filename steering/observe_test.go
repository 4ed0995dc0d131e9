package steering

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/bpf"
)

// What is observed is in the flags of TCP frontends, is read back from there by
// the next daemon, and is not written again by it.
func TestObserveIsInTheFlags(t *testing.T) {
	const both = bpf.FrontendRead | bpf.FrontendRequests
	for _, tc := range []struct {
		name     string
		observe  Observe
		tcp, udp uint32 // flags of such frontends
	}{
		{"auto", AutoObserve, bpf.FrontendRead, 0},
		{"requests", Requests, both, 0},
		{"connections", Connections, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newFakeKernel(t)
			r := newTestReconciler(k)
			s := shop()
			s.Observe = tc.observe
			// UDP has the first id: what is read back must not be of it.
			s.Frontends = append([]Frontend{{netip.MustParseAddrPort("198.18.0.10:80"), UDP}}, s.Frontends...)
			must(t, r.Update([]Service{s}))
			for key, f := range k.fronts.m {
				want := map[Proto]uint32{TCP: tc.tcp, UDP: tc.udp}[Proto(key.Proto)]
				if got := f.Flags & both; got != want {
					t.Errorf("%s has flags %#x, want %#x", frontendOf(key), got, want)
				}
			}
			again := newTestReconciler(k)
			must(t, again.Restore())
			if got := again.Desired()[0].Observe; got != tc.observe {
				t.Errorf("read back as %d, want %d", got, tc.observe)
			}
			writes := k.writes
			must(t, again.Update([]Service{s}))
			if k.writes != writes {
				t.Errorf("Update after Restore made %d writes", k.writes-writes)
			}
		})
	}
}

// A change writes the frontends' entries and nothing else: ids, tables and
// words stay.
func TestObserveChanges(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	s := shop()
	must(t, r.Update([]Service{s}))
	before := find(t, r, "shop")
	writes := k.writes
	s.Observe = Connections
	must(t, r.Update([]Service{s}))
	if n := k.writes - writes; n != len(s.Frontends) {
		t.Errorf("%d writes for %d frontends", n, len(s.Frontends))
	}
	after := find(t, r, "shop")
	if after.Observe != Connections {
		t.Errorf("observed is %d, want %d", after.Observe, Connections)
	}
	after.Observe = before.Observe
	for i := range after.Frontends {
		after.Frontends[i].Flags = before.Frontends[i].Flags
	}
	if d := cmp.Diff(before, after, netipCompare()); d != "" {
		t.Errorf("something else changed: %s", d)
	}
}

// A service of UDP alone says nothing about it, and is not taken for one whose
// connections shall not be read.
func TestObserveOfUDPIsTheDefault(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	s := shop()
	s.Frontends[0].Proto = UDP
	must(t, r.Update([]Service{s}))
	again := newTestReconciler(k)
	must(t, again.Restore())
	if got := again.Desired()[0].Observe; got != AutoObserve {
		t.Errorf("read back as %d, want %d", got, AutoObserve)
	}
}
