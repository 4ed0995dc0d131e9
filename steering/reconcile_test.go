package steering

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"siskin.dev/siskin/bpf"
)

func netipCompare() cmp.Option {
	return cmp.Options{cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{}), cmpopts.EquateEmpty()}
}

func shop() Service {
	s := service("shop", "198.18.0.10:80", version(Stable, "10.1.0.2:8080", "10.1.0.3:8080"), version("canary", "10.1.0.4:8080"))
	s.Weights["canary"] = 500
	return s
}

func find(t testing.TB, r *Reconciler, name string) ServiceStatus {
	t.Helper()
	st := r.Status()
	i := slices.IndexFunc(st, func(s ServiceStatus) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no service %s in %+v", name, st)
	}
	return st[i]
}

func (s ServiceStatus) version(t testing.TB, name string) VersionStatus {
	t.Helper()
	i := slices.IndexFunc(s.Versions, func(v VersionStatus) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("service %s has no version %s: %+v", s.Name, name, s.Versions)
	}
	return s.Versions[i]
}

func TestUpdateIsIdempotentAndRestores(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	b := service("api", "198.18.0.11:443", version(Stable, "10.1.0.2:8080", "10.2.0.9:1"))
	b.Frontends = append(b.Frontends, Frontend{netip.MustParseAddrPort("[2001:db8::10]:443"), UDP})
	b.Versions[0].Backends = append(b.Versions[0].Backends,
		Backend{Addr: netip.MustParseAddrPort("[2001:db8:1::2]:8080"), Weight: 7, State: Active},
		Backend{Addr: netip.MustParseAddrPort("[2001:db8:1::3]:8080"), Weight: 3, State: Draining})
	b.Affinity, b.SourceNAT = ByConnection, Always
	must(t, r.Update([]Service{shop(), b}))
	writes, graces := k.writes, k.graces
	must(t, r.Update([]Service{b, shop()}))
	if k.writes != writes || k.graces != graces {
		t.Fatalf("the second Update made %d writes and %d graces", k.writes-writes, k.graces-graces)
	}

	again := newTestReconciler(k)
	must(t, again.Restore())
	if d := cmp.Diff(r.Status(), again.Status(), netipCompare()); d != "" {
		t.Errorf("status after Restore: %s", d)
	}
	if d := cmp.Diff(r.Desired(), again.Desired(), netipCompare()); d != "" {
		t.Errorf("desired after Restore: %s", d)
	}
	writes = k.writes
	must(t, again.Update(again.Desired()))
	must(t, again.Prune())
	if k.writes != writes {
		t.Errorf("Update after Restore made %d writes", k.writes-writes)
	}
}

func TestDeletedServiceIsKeptWhileItHasFlows(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	must(t, r.Update([]Service{shop()}))
	st := find(t, r, "shop")
	front, back := st.Frontends[0].ID, st.version(t, Stable).Backends[0].ID
	k.inUse[front], k.flows[back] = true, 3
	must(t, r.Update(nil))
	must(t, r.Prune())
	if !find(t, r, "shop").Retired {
		t.Error("not retired")
	}
	if _, err := r.SetWeights("shop", map[string]Share{"canary": 1}); !errors.Is(err, ErrNoService) {
		t.Errorf("a deleted service was given a weight: %v", err)
	}
	again := newTestReconciler(k)
	must(t, again.Restore())
	if len(again.Desired()) != 0 {
		t.Errorf("Restore brought a deleted service back: %+v", again.Desired())
	}
	must(t, again.Update([]Service{shop()}))
	if st := find(t, again, "shop"); st.Retired || st.Frontends[0].ID != front || st.version(t, Stable).Backends[0].ID != back {
		t.Errorf("not revived with its ids: %+v", st)
	}
	must(t, again.Update(nil))
	clear(k.inUse)
	must(t, again.Prune()) // the frontend goes, and so the tables
	clear(k.flows)
	must(t, again.Prune())
	if len(again.Status()) != 0 || len(k.fronts.m)+len(k.vips.m)+len(k.backs.m)+len(k.ends.m)+len(k.servs.m)+len(k.gate.m)+len(k.echoes.m) != 0 {
		t.Errorf("left over: %+v", again.Status())
	}
}

func TestFrontendTakenOverKeepsItsID(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	must(t, r.Update([]Service{shop()}))
	st := find(t, r, "shop")
	k.inUse[st.Frontends[0].ID], k.flows[st.version(t, Stable).Backends[0].ID] = true, 1
	b := service("heir", "198.18.0.10:80", version(Stable, "10.1.0.2:8080"))
	must(t, r.Update([]Service{b}))
	must(t, r.Prune())
	heir, old := find(t, r, "heir"), find(t, r, "shop")
	if heir.Frontends[0].ID != st.Frontends[0].ID {
		t.Errorf("connections lose their frontend: id %d, was %d", heir.Frontends[0].ID, st.Frontends[0].ID)
	}
	if !old.Retired || len(old.version(t, Stable).Backends) != 1 {
		t.Errorf("the old service: %+v", old)
	}
	e := k.ends.m[bpf.TupleFrom(netip.MustParseAddrPort("10.1.0.2:8080"), uint8(TCP))]
	if e.Frontend != heir.Frontends[0].ID {
		t.Errorf("the way back changed: %+v", e)
	}
}

func TestSharedEndpoints(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	a := shop()
	must(t, r.Update([]Service{a}))
	key := bpf.TupleFrom(netip.MustParseAddrPort("10.1.0.2:8080"), uint8(TCP))
	first := k.ends.m[key].Frontend
	if first != find(t, r, "shop").Frontends[0].ID {
		t.Fatalf("an endpoint of one frontend: %+v", k.ends.m[key])
	}
	b := service("api", "198.18.0.11:80", version(Stable, "10.1.0.2:8080"))
	must(t, r.Update([]Service{a, b})) // the fake checks the order
	e := k.ends.m[key]
	if e.Frontend != first {
		t.Errorf("the endpoint forgot the frontend whose flows have no alias: %+v", e)
	}
	for id, be := range k.backs.m {
		if shared := be.Flags&bpf.BackendShared != 0; shared != (backendAddr(be) == key.AddrPort()) || shared && be.Endpoint != e.Id {
			t.Errorf("backend %d %s: flags %x endpoint %d", id, backendAddr(be), be.Flags, be.Endpoint)
		}
	}
	// The backend whose id the endpoint has goes; the endpoint keeps the id,
	// and nobody else gets it.
	must(t, r.Update([]Service{b}))
	must(t, r.Prune())
	must(t, r.Prune())
	if _, ok := k.backs.m[e.Id]; ok {
		t.Fatal("the backend was not pruned")
	}
	if got := k.ends.m[key]; got.Id != e.Id {
		t.Errorf("the endpoint's id changed from %d to %d", e.Id, got.Id)
	}
	// Alone again: first the endpoint says so, then the backend.
	for range 2 {
		must(t, r.Update([]Service{b}))
	}
	for id, be := range k.backs.m {
		if k.ends.m[key].Frontend != find(t, r, "api").Frontends[0].ID || be.Flags&bpf.BackendShared != 0 {
			t.Errorf("backend %d is alone again: %+v, endpoint %+v", id, be, k.ends.m[key])
		}
	}
	u := service("udp", "198.18.0.11:80", version(Stable, "10.1.0.2:8080"))
	u.Frontends[0].Proto = UDP
	must(t, r.Update([]Service{b, u}))
	if e := k.ends.m[bpf.TupleFrom(key.AddrPort(), uint8(UDP))]; e.Frontend != find(t, r, "udp").Frontends[0].ID {
		t.Errorf("another protocol made the endpoint shared: %+v", e)
	}
}

func TestFaultyServiceKeepsItsLastGoodState(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	must(t, r.Update([]Service{shop()}))
	writes := k.writes
	bad := shop()
	bad.Versions[1].Backends = nil
	good := service("api", "198.18.0.11:80", version(Stable, "10.1.0.9:1"))
	thief := service("aaa", "198.18.0.10:80", version(Stable, "10.1.0.9:1"))
	err := r.Update([]Service{bad, good, thief})
	var fe *FieldError
	if !errors.As(err, &fe) {
		t.Fatalf("error %v", err)
	}
	if find(t, r, "api").Retired || find(t, r, "shop").Retired || k.writes == writes {
		t.Error("one bad service stopped the others")
	}
	if f := k.fronts.m[thief.Frontends[0].tuple()]; f.Service != find(t, r, "shop").ID {
		t.Error("a frontend was stolen")
	}
	if d := cmp.Diff([]string{"api", "shop"}, []string{r.Desired()[0].Name, r.Desired()[1].Name}); d != "" {
		t.Error(d)
	}
	if n := len(find(t, r, "shop").version(t, "canary").Backends); n != 1 {
		t.Errorf("the last good canary has %d backends", n)
	}
}

func TestBackendStates(t *testing.T) {
	count := func(k *fakeKernel, slot int) map[uint32]int {
		out := map[uint32]int{}
		for _, f := range k.fronts.m {
			for _, id := range k.maglev[f.Tables[slot].Offset:][:f.Tables[slot].Length] {
				out[id]++
			}
		}
		return out
	}
	for _, tc := range []struct {
		name           string
		a, b, canary   BackendState
		stable, others int // backends in the tables
	}{
		{"all active", Active, Active, Active, 2, 1},
		{"one drains", Draining, Active, Active, 1, 1},
		{"canary is down: its share goes to stable", Active, Active, Down, 2, 0},
		{"stable is down: health is ignored", Down, Down, Active, 2, 1},
		{"what drains gets nothing even then", Down, Draining, Active, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newFakeKernel(t)
			r := newTestReconciler(k)
			must(t, r.Update([]Service{shop()}))
			s := shop()
			s.Versions[0].Backends[0].State, s.Versions[0].Backends[1].State = tc.a, tc.b
			s.Versions[1].Backends[0].State = tc.canary
			must(t, r.Update([]Service{s}))
			if got := len(count(k, 0)); got != tc.stable {
				t.Errorf("stable's table has %d backends, want %d", got, tc.stable)
			}
			if got := len(count(k, 1)); got != tc.others {
				t.Errorf("canary's table has %d backends, want %d", got, tc.others)
			}
			for _, v := range find(t, r, "shop").Versions {
				for _, b := range v.Backends {
					if b.Retired {
						t.Errorf("backend %s is retired, it is only out of the table", b.Addr)
					}
				}
			}
		})
	}
}

func TestFullMapsAreAnErrorOfTheService(t *testing.T) {
	k := newFakeKernel(t)
	m := k.maps()
	m.Limits.Backends = 4 // ids 1 to 3: the shop's
	r := New(m, fakePaths{}, newTestReconciler(k).log)
	must(t, r.Update([]Service{shop()}))
	err := r.Update([]Service{shop(), service("api", "198.18.0.11:80", version(Stable, "10.1.0.9:1"))})
	if !errors.Is(err, ErrFull) {
		t.Fatalf("error %v, want ErrFull", err)
	}
	must(t, r.Update([]Service{shop()}))
	must(t, r.Prune())
	if len(k.servs.m) != 1 {
		t.Errorf("left over: %v", k.servs.m)
	}
}

func TestNoRouteKeepsTheLastWay(t *testing.T) {
	k := newFakeKernel(t)
	paths := fakePaths{lost: map[netip.Addr]bool{netip.MustParseAddr("10.1.0.4"): true}}
	r := New(k.maps(), paths, newTestReconciler(k).log)
	must(t, r.Update([]Service{shop()}))
	before := k.writes
	for id := range k.backs.m {
		paths.lost[k.backs.m[id].Addr.Netip()] = true
	}
	must(t, r.Update([]Service{shop()}))
	if k.writes != before {
		t.Error("a lost route changed something")
	}
	clear(paths.lost)
	must(t, r.Update([]Service{shop()}))
	for id, b := range k.backs.m {
		if b.Source == (bpf.Addr{}) {
			t.Errorf("backend %d has no source address", id)
		}
	}
}
