package steering

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"siskin.dev/siskin/bpf"
)

// view is what is in the maps, told without ids, slots and history.
type view struct {
	Flags   map[string]uint32          // by frontend
	Tables  map[string]map[string]bool // by frontend and version: entries of each address
	Shares  map[string]Share           // by service and version
	Counts  [4]int                     // entries of the maps by id and of services
	Ends    map[string]bool            // endpoints to which a frontend leads
	Ways    map[string]string          // backends
	Service map[string]string          // of a frontend
	Echoes  map[bpf.Addr]uint32
}

func (k *fakeKernel) view() view {
	v := view{
		Flags: map[string]uint32{}, Tables: map[string]map[string]bool{}, Shares: map[string]Share{},
		Ways: map[string]string{}, Service: map[string]string{},
		Counts: [4]int{len(k.fronts.m), len(k.vips.m), len(k.backs.m), len(k.servs.m)},
		Ends:   map[string]bool{}, Echoes: maps.Clone(k.echoes.m),
	}
	led := leadsOf(k.backs.m, k.fronts.m)
	gate := map[uint32]uint64{}
	for key := range k.ends.m {
		// Others may stay while a frontend that led there is alive: it may
		// have flows from that time.
		if led[key] != nil {
			v.Ends[frontendOf(key).String()] = true
		}
		word, bit := bpf.GateBit(bpf.GateEndpoints, key, fakeGate)
		gate[word] |= bit
	}
	for key := range k.fronts.m {
		word, bit := bpf.GateBit(bpf.GateFrontends, key, fakeGate)
		gate[word] |= bit
	}
	if !maps.Equal(gate, k.gate.m) {
		k.t.Fatalf("the gate is %v, the entries need %v", k.gate.m, gate)
	}
	for key, f := range k.fronts.m {
		rec := k.servs.m[f.Service]
		name := frontendOf(key).String()
		v.Flags[name] = f.Flags
		v.Service[name] = bpf.Text(rec.Name[:])
		for slot, t := range f.Tables {
			version := bpf.Text(rec.Versions[slot][:])
			// Who is in it; how often depends on the size, and that on how
			// large the version ever was.
			members := map[string]bool{}
			for _, id := range k.maglev[t.Offset:][:t.Length] {
				members[backendAddr(k.backs.m[id]).String()] = true
			}
			if t.Length > 0 {
				v.Tables[name+" "+version] = members
			}
			if version != "" {
				v.Shares[bpf.Text(rec.Name[:])+" "+version] = k.words[rec.Word].Share(uint8(slot))
			}
		}
	}
	for _, b := range k.backs.m {
		rec := k.servs.m[b.Service]
		v.Ways[fmt.Sprintf("%s %s %s", bpf.Text(rec.Name[:]), bpf.Text(rec.Versions[b.Slot][:]), backendAddr(b))] =
			fmt.Sprint(b.Flags&^bpf.BackendShared, b.Source.Netip(), b.Ifindex, b.Pad)
	}
	return v
}

func genService(t *rapid.T, name string, frontends []Frontend) Service {
	s := Service{Name: name, Frontends: frontends, Weights: map[string]Share{}}
	families := familiesOf(frontends)
	s.Affinity = rapid.SampledFrom([]Affinity{ByClient, ByConnection}).Draw(t, "affinity")
	versions := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"canary", "baseline", "blue", "green", "red"}), 0, 3, rapid.ID[string]).Draw(t, "versions")
	for _, name := range append([]string{Stable}, versions...) {
		v := Version{Name: name}
		for _, net := range []string{"10.1.0.%d:8080", "[2001:db8:1::%d]:8080"} {
			if !families[FamilyOf(netip.MustParseAddrPort(fmt.Sprintf(net, 1)).Addr())] {
				continue
			}
			hosts := rapid.SliceOfNDistinct(rapid.IntRange(1, 5), 1, 3, rapid.ID[int]).Draw(t, "hosts")
			for i, h := range hosts {
				b := Backend{Addr: netip.MustParseAddrPort(fmt.Sprintf(net, h)), Weight: uint32(rapid.IntRange(0, 2).Draw(t, "weight"))}
				if i == 0 {
					b.Weight = 1
				}
				b.State = rapid.SampledFrom([]BackendState{Active, Active, Draining, Down}).Draw(t, "state")
				v.Backends = append(v.Backends, b)
			}
		}
		s.Versions = append(s.Versions, v)
		if name != Stable {
			s.Weights[name] = Share(rapid.IntRange(0, 3000).Draw(t, "share"))
		}
	}
	return s
}

func genDesired(t *rapid.T) []Service {
	pool := []Frontend{
		{netip.MustParseAddrPort("198.18.0.10:80"), TCP}, {netip.MustParseAddrPort("198.18.0.11:80"), TCP},
		{netip.MustParseAddrPort("198.18.0.10:80"), UDP}, {netip.MustParseAddrPort("[2001:db8::10]:80"), TCP},
		{netip.MustParseAddrPort("10.1.0.1:8080"), TCP},
	}
	pool = rapid.Permutation(pool).Draw(t, "frontends")
	var out []Service
	for _, name := range []string{"a", "b", "c"} {
		n := rapid.IntRange(0, min(2, len(pool))).Draw(t, "count")
		if n > 0 {
			out = append(out, genService(t, name, pool[:n]))
			pool = pool[n:]
		}
	}
	return out
}

// Whatever fails in between, once nothing fails any more the maps are as if
// nothing ever had; and at no moment could a packet go astray, which the fake
// checks. Now and then the daemon is killed in the middle and starts again.
func TestFaultsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { converge(t, func(*rapid.T, []Service) {}, noStates) })
}

// The same while backends fall and rise, by SetStates and not by what is
// desired.
func TestStatesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { converge(t, onlyDraining, genStates) })
}

func onlyDraining(_ *rapid.T, services []Service) {
	for _, s := range services {
		for _, v := range s.Versions {
			for i := range v.Backends {
				if v.Backends[i].State == Down {
					v.Backends[i].State = Active
				}
			}
		}
	}
}

func noStates(*rapid.T, []Service) map[BackendName]BackendState { return nil }

func genStates(t *rapid.T, services []Service) map[BackendName]BackendState {
	out := map[BackendName]BackendState{}
	for _, s := range services {
		for _, v := range s.Versions {
			for _, b := range v.Backends {
				out[BackendName{s.Name, v.Name, b.Addr}] = rapid.SampledFrom([]BackendState{Active, Active, Down, Starting}).Draw(t, "fares")
			}
		}
	}
	return out
}

// The same while services join groups and leave them. Which shares a group
// ends with depends on who was there first, so those are not compared.
func TestGroupsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		converge(t, func(t *rapid.T, services []Service) {
			for i := range services {
				services[i].Group = rapid.SampledFrom([]string{"", "g", "h"}).Draw(t, "group")
				// A group has room for four versions in all.
				services[i].Versions = slices.DeleteFunc(services[i].Versions, func(v Version) bool { return v.Name == "red" })
				services[i].Weights = nil
			}
		}, noStates)
	})
}

func converge(t *rapid.T, change func(*rapid.T, []Service), fare func(*rapid.T, []Service) map[BackendName]BackendState) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	var desired []Service
	for range rapid.IntRange(1, 5).Draw(t, "rounds") {
		desired = genDesired(t)
		change(t, desired)
		r = disturb(t, k, r, desired, func() map[BackendName]BackendState { return fare(t, desired) })
	}
	k.fault = func() bool { return false }
	for range 3 {
		if err := r.Update(desired); err != nil {
			t.Fatalf("Update without faults: %v", err)
		}
		if err := r.Prune(); err != nil {
			t.Fatal(err)
		}
	}
	states := fare(t, desired)
	if err := r.SetStates(states); err != nil {
		t.Fatal(err)
	}
	fresh := newFakeKernel(t)
	another := newTestReconciler(fresh)
	if err := errors.Join(another.SetStates(states), another.Update(desired)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(fresh.view(), k.view()); d != "" {
		t.Fatalf("after faults (+) and without (-): %s", d)
	}
	if err := r.Prune(); err != nil { // a flip needs its grace period only then
		t.Fatal(err)
	}
	checkGroups(t, r.Status())
	checkNamed(t, r)
	writes, graces := k.writes, k.graces
	if err := r.Update(desired); err != nil || k.writes != writes || k.graces != graces {
		t.Fatalf("one more Update: %v, %d writes, %d graces", err, k.writes-writes, k.graces-graces)
	}
	again := newTestReconciler(k)
	if err := again.Restore(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r.Status(), again.Status(), netipCompare()); d != "" {
		t.Fatalf("status after Restore: %s", d)
	}
	if err := errors.Join(again.SetStates(states), again.Update(desired)); err != nil || k.writes != writes {
		t.Fatalf("Update after Restore: %v, %d writes", err, k.writes-writes)
	}
}

// checkNamed wants the look-up by name to find what is in Status and not deleted.
func checkNamed(t *rapid.T, r *Reconciler) {
	names := []string{"nobody", "zz"}
	var want []ServiceStatus
	for _, s := range r.Status() {
		names = append(names, s.Name)
		if !s.Retired {
			want = append(want, s)
		}
	}
	slices.Reverse(names)
	if d := cmp.Diff(want, r.Named(names...), netipCompare()); d != "" {
		t.Fatalf("found by name (+) and in the status (-): %s", d)
	}
}

// checkGroups checks that services share a word if and only if they are of one
// group, and that a slot of a word means one version.
func checkGroups(t *rapid.T, status []ServiceStatus) {
	groups, words := map[uint32]string{}, map[string]uint32{}
	names := map[uint32]map[uint8]string{}
	for _, s := range status {
		group := s.Group
		if group == "" {
			group = "service/" + s.Name
		}
		if g, ok := groups[s.Word]; ok && g != group {
			t.Fatalf("word %d is of %s and of %s", s.Word, g, group)
		}
		if w, ok := words[group]; ok && w != s.Word {
			t.Fatalf("%s has words %d and %d", group, w, s.Word)
		}
		groups[s.Word], words[group] = group, s.Word
		if names[s.Word] == nil {
			names[s.Word] = map[uint8]string{}
		}
		for _, v := range s.Versions {
			if old, ok := names[s.Word][v.Slot]; ok && old != v.Name {
				t.Fatalf("slot %d of word %d is %s and %s", v.Slot, s.Word, old, v.Name)
			}
			names[s.Word][v.Slot] = v.Name
		}
	}
}

// disturb carries out one desired state while some map accesses fail, and
// perhaps restarts. Before and after it backends fall or rise.
func disturb(t *rapid.T, k *fakeKernel, r *Reconciler, desired []Service, fare func() map[BackendName]BackendState) *Reconciler {
	faults := rapid.SliceOfN(rapid.IntRange(0, 60), 0, 4).Draw(t, "faults")
	calls := 0
	k.fault = func() bool { calls++; return slices.Contains(faults, calls-1) }
	err := errors.Join(r.SetStates(fare()), r.Update(desired), r.SetStates(fare()))
	if len(faults) == 0 && err != nil {
		t.Fatalf("Update without a fault: %v", err)
	}
	if rapid.Bool().Draw(t, "flows") {
		for id := range k.backs.m {
			k.flows[id] = 1
		}
		for id := range k.vips.m {
			k.inUse[id] = true
		}
	}
	_ = r.Prune() // may fail; the next one does it
	clear(k.flows)
	clear(k.inUse)
	if rapid.IntRange(0, 3).Draw(t, "restart") > 0 {
		return r
	}
	k.fault = func() bool { return false }
	applied := r.Applied()
	r = newTestReconciler(k)
	if err := r.Restore(); err != nil {
		t.Fatal(err)
	}
	r.Remember(applied)
	return r
}

// A release must be able to go back while an Update waits for the kernel.
func TestWeightsDoNotWaitForAnUpdate(t *testing.T) {
	k := newFakeKernel(t)
	m := k.maps()
	entered, release := make(chan bool), make(chan bool)
	m.Grace = func() error {
		entered <- true
		<-release
		return k.grace()
	}
	r := New(m, fakePaths{}, newTestReconciler(k).log)
	must(t, r.Update([]Service{shop()}))
	s := shop()
	s.Versions[0].Backends = s.Versions[0].Backends[:1]
	done := make(chan error)
	go func() { done <- r.Update([]Service{s}) }()
	<-entered
	finished := make(chan error)
	go func() {
		_, err := r.SetWeights("shop", map[string]Share{"canary": 4000})
		if err == nil {
			_, err = r.Rollback()
		}
		r.Status()
		r.Desired()
		finished <- err
	}()
	select {
	case err := <-finished:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("SetWeights, Rollback or Status waited for Update")
	}
	close(release)
	must(t, <-done)
	if got := find(t, r, "shop").version(t, "canary").Share; got != 0 {
		t.Errorf("after the rollback canary has %s", got)
	}
}
