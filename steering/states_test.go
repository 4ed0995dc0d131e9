package steering

import (
	"errors"
	"net/netip"
	"testing"

	"siskin.dev/siskin/bpf"
)

func shopBackend(version, addr string) BackendName {
	return BackendName{"shop", version, netip.MustParseAddrPort(addr)}
}

// tableOf returns the shop's table of a version.
func (k *fakeKernel) tableOf(slot int) []uint32 {
	for _, f := range k.fronts.m {
		if t := f.Tables[slot]; t.Length > 0 {
			return append([]uint32{}, k.maglev[t.Offset:][:t.Length]...)
		}
	}
	return nil
}

func TestSetStates(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	a, canary := shopBackend(Stable, "10.1.0.2:8080"), shopBackend("canary", "10.1.0.4:8080")
	// What comes new is not known to answer before anybody asked.
	must(t, r.SetStates(map[BackendName]BackendState{canary: Starting}))
	must(t, r.Update([]Service{shop()}))
	if n := len(k.tableOf(1)); n != 0 {
		t.Fatalf("the canary's table has %d entries before its backend was seen to answer", n)
	}
	must(t, r.SetStates(map[BackendName]BackendState{canary: Active}))
	if n := len(k.tableOf(1)); n != 1 {
		t.Fatalf("the canary's table has %d entries, want 1", n)
	}
	before := k.tableOf(0)
	ids := map[netip.AddrPort]uint32{}
	for id, b := range k.backs.m {
		ids[backendAddr(b)] = id
	}
	must(t, r.SetStates(map[BackendName]BackendState{a: Down}))
	for i, id := range k.tableOf(0) {
		if id == ids[a.Addr] || before[i] != ids[a.Addr] && before[i] != id {
			t.Fatalf("entry %d leads to %d, it was %d", i, id, before[i])
		}
	}
	if st := find(t, r, "shop").version(t, Stable).Backends[0]; st.State != Down || st.Retired || st.ID != ids[a.Addr] {
		t.Errorf("the backend that is down: %+v", st)
	}
	// The document does not know, and need not.
	must(t, r.Update([]Service{shop()}))
	again := newTestReconciler(k)
	must(t, again.Restore())
	must(t, again.Prune())
	writes := k.writes
	if st := find(t, again, "shop").version(t, Stable).Backends[0]; st.State != Down {
		t.Errorf("after a restart: %+v, want it down", st)
	}
	must(t, again.SetStates(map[BackendName]BackendState{a: Down}))
	must(t, again.Update([]Service{shop()}))
	if k.writes != writes {
		t.Errorf("%d writes by the first Update after a restart", k.writes-writes)
	}
	must(t, again.SetStates(map[BackendName]BackendState{a: Active}))
	if d := k.tableOf(0); len(d) != len(before) {
		t.Fatalf("the table has %d entries, it had %d", len(d), len(before))
	}
	for i, id := range k.tableOf(0) {
		if id != before[i] {
			t.Fatalf("entry %d did not come back: %d, want %d", i, id, before[i])
		}
	}
	// A backend that goes and comes again is another one.
	must(t, again.SetStates(map[BackendName]BackendState{a: Down}))
	s := shop()
	s.Versions[0].Backends = s.Versions[0].Backends[1:]
	must(t, again.Update([]Service{s}))
	must(t, again.Prune())
	must(t, again.Update([]Service{shop()}))
	if st := find(t, again, "shop").version(t, Stable).Backends; st[0].State != Active || st[1].State != Active {
		t.Errorf("a backend came back as it had been: %+v", st)
	}
}

// Where an Update failed, a change of states does what it left, too.
func TestSetStatesAfterAFailedUpdate(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	must(t, r.Update([]Service{shop()}))
	s := shop()
	s.Versions[0].Backends = append(s.Versions[0].Backends, Backend{Addr: netip.MustParseAddrPort("10.1.0.9:8080"), Weight: 1})
	k.fault = func() bool { return true }
	if err := r.Update([]Service{s}); !errors.Is(err, errFault) {
		t.Fatalf("Update with faults: %v", err)
	}
	a := shopBackend(Stable, "10.1.0.2:8080")
	if err := r.SetStates(map[BackendName]BackendState{a: Down}); !errors.Is(err, errFault) {
		t.Fatalf("SetStates with faults: %v", err)
	}
	k.fault = func() bool { return false }
	must(t, r.SetStates(map[BackendName]BackendState{shopBackend(Stable, "10.1.0.3:8080"): Down}))
	members := map[string]bool{}
	for _, id := range k.tableOf(0) {
		members[backendAddr(k.backs.m[id]).String()] = true
	}
	if len(members) != 1 || !members["10.1.0.9:8080"] {
		t.Errorf("stable's table leads to %v, want the one that is not down", members)
	}
}

// Who stands in the way of a flip is asked for no way.
func TestSetStatesAsksForNoWay(t *testing.T) {
	k := newFakeKernel(t)
	asked := 0
	paths := pathFunc(func(a netip.Addr) (Path, error) { asked++; return fakePaths{}.Path(a) })
	r := New(k.maps(), paths, newTestReconciler(k).log)
	must(t, r.Update([]Service{shop()}))
	before, flags := asked, map[uint32]bpf.Backend{}
	for id, b := range k.backs.m {
		flags[id] = b
	}
	must(t, r.SetStates(map[BackendName]BackendState{shopBackend(Stable, "10.1.0.2:8080"): Down}))
	if asked != before {
		t.Errorf("SetStates asked for %d ways", asked-before)
	}
	for id, b := range k.backs.m {
		if b.State = flags[id].State; b != flags[id] {
			t.Errorf("backend %d is %+v, it was %+v", id, b, flags[id])
		}
	}
}

// A backend that falls during a release moves no client between versions.
func TestSetStatesDuringARelease(t *testing.T) {
	k, _, r := releasing(t)
	_, err := r.BeginRelease(cartV2())
	must(t, err)
	must(t, r.Update(together()))
	before := salts(k)
	must(t, r.SetStates(map[BackendName]BackendState{{"cart", "canary", netip.MustParseAddrPort("10.1.0.3:80")}: Down}))
	if s := salts(k); len(s) != 1 || !s[seedSalt("v2/1")] || len(before) != 1 {
		t.Errorf("salts %v, they were %v", s, before)
	}
}
