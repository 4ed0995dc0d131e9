package steering

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRestoredWeightsStayUntilTheDocumentChanges(t *testing.T) {
	for _, tc := range []struct {
		name     string
		remember Share // desired before the restart; Whole: not known
		desired  Share
		want     Share
	}{
		{"unknown before", Whole, 500, 2000},
		{"same document", 500, 500, 2000},
		{"document changed meanwhile", 500, 700, 700},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newFakeKernel(t)
			r := newTestReconciler(k)
			must(t, r.Update([]Service{shop()}))
			_, err := r.SetWeights("shop", map[string]Share{"canary": 2000})
			must(t, err)
			r = newTestReconciler(k)
			must(t, r.Restore())
			s := shop()
			if tc.remember != Whole {
				r.Remember(map[string]map[string]Share{"shop": {"canary": tc.remember}})
			}
			s.Weights = map[string]Share{"canary": tc.desired}
			must(t, r.Update([]Service{s}))
			if got := find(t, r, "shop").version(t, "canary").Share; got != tc.want {
				t.Errorf("canary has %s, want %s", got, tc.want)
			}
			s.Weights = map[string]Share{"canary": 900}
			must(t, r.Update([]Service{s}))
			if got := find(t, r, "shop").version(t, "canary").Share; got != 900 {
				t.Errorf("after the next change canary has %s, want 9%%", got)
			}
		})
	}
}

func TestWeightsMergeThreeWays(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	must(t, r.Update([]Service{shop()}))
	c, err := r.SetWeights("shop", map[string]Share{"canary": 2500})
	must(t, err)
	if c.Before > c.After || c.Before == 0 || c.Old.Share(1) != 500 || c.New.Share(1) != 2500 || c.New.Epoch() != c.Old.Epoch()+1 {
		t.Errorf("change %+v", c)
	}
	if d := cmp.Diff(map[string]Share{"stable": 7500, "canary": 2500}, c.Shares); d != "" {
		t.Error(d)
	}
	must(t, r.Update([]Service{shop()}))
	if got := find(t, r, "shop").version(t, "canary").Share; got != 2500 {
		t.Errorf("applying the same document undid the weight: %s", got)
	}
	_, err = r.Rollback()
	must(t, err)
	must(t, r.Update([]Service{shop()}))
	if got := find(t, r, "shop").version(t, "stable").Share; got != Whole {
		t.Errorf("applying the same document undid the rollback: stable has %s", got)
	}
	for _, tc := range []struct {
		service string
		set     map[string]Share
		want    error
	}{
		{"nope", map[string]Share{"canary": 1}, ErrNoService},
		{"shop", map[string]Share{"nope": 1}, ErrNoVersion},
		{"shop", map[string]Share{"canary": 10001}, ErrOverWhole},
	} {
		if _, err := r.SetWeights(tc.service, tc.set); !errors.Is(err, tc.want) {
			t.Errorf("SetWeights(%s, %v) = %v, want %v", tc.service, tc.set, err, tc.want)
		}
	}
	if _, err := r.SetWeights("shop", map[string]Share{Stable: 1}); err == nil {
		t.Error("stable's share was set")
	}
}

// TestRollbackOverrulesWhatIsNotCarriedOut applies a document that does not fit
// yet, takes everything back, and lets the retry come: it must not bring back
// what was taken.
func TestRollbackOverrulesWhatIsNotCarriedOut(t *testing.T) {
	for _, names := range [][]string{nil, {"shop"}} {
		k := newFakeKernel(t)
		r := newTestReconciler(k)
		must(t, r.Update([]Service{shop()}))
		_, err := r.SetWeights("shop", map[string]Share{"canary": 9500})
		must(t, err)
		s := shop()
		s.Versions = append(s.Versions, Version{Name: "baseline", Backends: s.Versions[0].Backends})
		s.Weights["baseline"] = 1000
		if err := r.Update([]Service{s}); !errors.Is(err, ErrOverWhole) {
			t.Fatalf("update: %v, want %v", err, ErrOverWhole)
		}
		_, err = r.Rollback(names...)
		must(t, err)
		must(t, r.Update([]Service{s}))
		got := find(t, r, "shop")
		if c, b := got.version(t, "canary").Share, got.version(t, "baseline").Share; c != 0 || b != 0 {
			t.Errorf("after the rollback the retry gave canary %s and baseline %s", c, b)
		}
		s.Weights = map[string]Share{"canary": 300, "baseline": 200}
		must(t, r.Update([]Service{s}))
		got = find(t, r, "shop")
		if c, b := got.version(t, "canary").Share, got.version(t, "baseline").Share; c != 300 || b != 200 {
			t.Errorf("a newer document gave canary %s and baseline %s, want 3%% and 2%%", c, b)
		}
	}
}

func TestRollbackOfManyAndOfUnknown(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	a, b := shop(), shop()
	b.Name, b.Frontends[0].Addr = "api", netip.MustParseAddrPort("198.18.0.11:80")
	must(t, r.Update([]Service{a, b}))
	changes, err := r.Rollback("nope", "shop")
	if !errors.Is(err, ErrNoService) || len(changes) != 1 || !changes[0].New.IsZero() || changes[0].Old.Share(1) != 500 {
		t.Fatalf("rollback: %v, %+v", err, changes)
	}
	if find(t, r, "shop").version(t, "canary").Share != 0 || find(t, r, "api").version(t, "canary").Share != 500 {
		t.Error("the wrong service was rolled back")
	}
	changes, err = r.Rollback()
	must(t, err)
	if len(changes) != 2 || changes[0].Service != "api" || changes[1].Old != changes[1].New {
		t.Errorf("rollback of all: %+v", changes)
	}
}

func TestGroupSharesOneWord(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	a := shop()
	b := service("api", "198.18.0.11:80", version(Stable, "10.1.0.7:1"), version("baseline", "10.1.0.8:1"), version("canary", "10.1.0.9:1"))
	must(t, r.Update([]Service{a, b}))
	a.Group, b.Group = "release", "release"
	must(t, r.Update([]Service{a, b}))
	x, y := find(t, r, "shop"), find(t, r, "api")
	if x.Word != y.Word || x.version(t, "canary").Slot != y.version(t, "canary").Slot {
		t.Fatalf("no common word or slot: %+v %+v", x, y)
	}
	c, err := r.SetWeights("shop", map[string]Share{"canary": 3000})
	must(t, err)
	if got := find(t, r, "api").version(t, "canary").Share; got != 3000 {
		t.Errorf("the other service has %s", got)
	}
	if k.words[x.Word] != c.New {
		t.Error("the word is not the one that was stored")
	}
	a.Group = ""
	must(t, r.Update([]Service{a, b}))
	if find(t, r, "shop").Word == y.Word || find(t, r, "shop").version(t, "canary").Share != 3000 {
		t.Errorf("left the group without its weights: %+v", find(t, r, "shop"))
	}
	changes, err := r.Rollback("api")
	must(t, err)
	if len(changes) != 1 || find(t, r, "shop").version(t, "canary").Share != 3000 {
		t.Error("rolling back the group still touches who left it")
	}
}

func TestRemovedVersionGivesUpWeightThenSlot(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	must(t, r.Update([]Service{shop()}))
	id := find(t, r, "shop").version(t, "canary").Backends[0].ID
	k.flows[id] = 1
	s := shop()
	s.Versions = s.Versions[:1]
	s.Weights = nil
	must(t, r.Update([]Service{s}))
	must(t, r.Prune())
	v := find(t, r, "shop").version(t, "canary")
	if !v.Retired || k.words[find(t, r, "shop").Word].Share(1) != 0 {
		t.Errorf("canary after its removal: %+v", v)
	}
	if _, err := r.SetWeights("shop", map[string]Share{"canary": 1}); !errors.Is(err, ErrNoVersion) {
		t.Errorf("a removed version was given a weight: %v", err)
	}
	revived := shop()
	must(t, r.Update([]Service{revived}))
	v = find(t, r, "shop").version(t, "canary")
	if v.Retired || v.Backends[0].ID != id || v.Share != 500 {
		t.Errorf("canary after its return: %+v, want backend %d", v, id)
	}
	must(t, r.Update([]Service{s}))
	delete(k.flows, id)
	must(t, r.Prune())
	s.Versions = append(s.Versions, version("next", "10.1.0.5:8080"))
	must(t, r.Update([]Service{s}))
	if v := find(t, r, "shop").version(t, "next"); v.Slot != 1 {
		t.Errorf("the free slot was not used: %+v", v)
	}
	if v := find(t, r, "shop").version(t, "next"); v.Backends[0].ID == id {
		t.Errorf("id %d was given out again at once", id)
	}
}
