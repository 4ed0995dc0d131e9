package steering

import (
	"errors"
	"testing"

	"siskin.dev/siskin/bpf"
)

// fakeReleases is the kernel's side of releases: leases without a clock.
type fakeReleases struct {
	k      *fakeKernel
	leases map[uint32]bpf.Lease
	runs   map[uint32]bpf.Watch
	steps  []uint8
}

func (f *fakeReleases) Load(word uint32) bpf.Lease      { return f.leases[word] }
func (f *fakeReleases) Set(word uint32, deadline int64) { f.leases[word] = bpf.Lease(deadline) }

func (f *fakeReleases) Renew(word uint32, old bpf.Lease, deadline int64) (bpf.Lease, error) {
	if f.leases[word].Over() {
		return old, bpf.ErrLeaseOver
	}
	if f.leases[word] != old {
		return old, bpf.ErrLeaseChanged
	}
	f.leases[word] = bpf.Lease(deadline)
	return f.leases[word], nil
}

// takeBack is what the kernel does by itself.
func (f *fakeReleases) takeBack(word uint32) {
	f.leases[word] |= 1 << 63
	f.k.words[word] = f.k.words[word].Zeroed()
}

// fakeWatches is the rest of it.
type fakeWatches fakeReleases

func (f *fakeWatches) Begin(word uint32, w bpf.Watch) (bpf.Watch, error) {
	if err := f.k.try(); err != nil {
		return w, err
	}
	if !f.k.words[word].IsZero() {
		f.k.t.Fatalf("a release begins on the word %#x", f.k.words[word])
	}
	w.Started = 1
	f.runs[word] = w
	return w, nil
}

func (f *fakeWatches) SetStep(_ uint32, step uint8) { f.steps = append(f.steps, step) }

func (f *fakeWatches) End(word uint32) error {
	if err := f.k.try(); err != nil {
		return err
	}
	delete(f.runs, word)
	return nil
}

func (f *fakeWatches) Load(word uint32) (bpf.Watch, error) {
	if w, ok := f.runs[word]; ok {
		return w, nil
	}
	return bpf.Watch{}, bpf.ErrNoRelease
}

func (f *fakeWatches) Running() (out []uint32) {
	for word := range f.runs {
		out = append(out, word)
	}
	return out
}

// releasing returns a reconciler of two services that change together, and the
// kernel's side of releases.
func releasing(t *testing.T) (*fakeKernel, *fakeReleases, *Reconciler) {
	t.Helper()
	k := newFakeKernel(t)
	f := &fakeReleases{k: k, leases: map[uint32]bpf.Lease{}, runs: map[uint32]bpf.Watch{}}
	r := restarted(t, k, f)
	must(t, r.Update(together()))
	return k, f, r
}

// restarted returns a new reconciler of the same kernel.
func restarted(t *testing.T, k *fakeKernel, f *fakeReleases) *Reconciler {
	t.Helper()
	r := newTestReconciler(k)
	r.maps.Leases, r.maps.Releases = f, (*fakeWatches)(f)
	must(t, r.Restore())
	return r
}

func together() []Service {
	a := service("cart", "198.18.0.10:80", version("stable", "10.1.0.2:80"), version("canary", "10.1.0.3:80"))
	b := service("pay", "198.18.0.11:80", version("stable", "10.1.0.4:80"), version("canary", "10.1.0.5:80"))
	a.Group, b.Group = "shop", "shop"
	return []Service{a, b}
}

func cartV2() Release {
	return Release{Name: "v2", Services: []string{"pay", "cart"}, Version: "canary", Seed: "v2/1", Deadline: 1000}
}

func salts(k *fakeKernel) map[uint32]bool {
	out := map[uint32]bool{}
	for _, f := range k.fronts.m {
		out[f.Salt] = true
	}
	return out
}

func TestReleaseTakesTheWeights(t *testing.T) {
	k, f, r := releasing(t)
	if len(salts(k)) != 2 {
		t.Fatalf("salts %v", salts(k))
	}
	watch, err := r.BeginRelease(cartV2())
	must(t, err)
	word, err := r.WordOf("v2")
	must(t, err)
	if watch.Started == 0 || watch.Version != 1 || f.leases[word] != 1000 {
		t.Errorf("watched: %+v, lease %d", watch, f.leases[word])
	}
	if s := salts(k); len(s) != 1 || !s[seedSalt("v2/1")] {
		t.Errorf("salts %v", s)
	}
	c, err := r.SetShare("v2", 1, 500)
	must(t, err)
	if k.words[word] != c.New || c.New.Share(1) != 500 || c.Service != "cart" || c.Shares["canary"] != 500 {
		t.Errorf("the word is %#x after %+v", k.words[word], c)
	}
	for _, name := range []string{"cart", "pay"} {
		if _, err := r.SetWeights(name, map[string]Share{"canary": 100}); !errors.Is(err, ErrHeld) {
			t.Errorf("by hand: %v", err)
		}
	}
	if _, err := r.BeginRelease(cartV2()); !errors.Is(err, ErrHeld) {
		t.Errorf("beginning again: %v", err)
	}
	must(t, r.Update(together()))
	if s := salts(k); len(s) != 1 || !s[seedSalt("v2/1")] || k.words[word] != c.New {
		t.Errorf("an update has changed the salts to %v, the word to %#x", s, k.words[word])
	}
	if err := r.EndRelease("v2"); !errors.Is(err, ErrWeighted) {
		t.Errorf("ending it with a share: %v", err)
	}
	must(t, r.RenewLease("v2", 2000))
	if _, err := r.RollbackRelease("v2"); err != nil || !k.words[word].IsZero() {
		t.Errorf("rolled back to %#x: %v", k.words[word], err)
	}
	must(t, r.EndRelease("v2"))
	if f.leases[word] != 0 || len(f.runs) != 0 {
		t.Errorf("after the end: leases %v, watched %v", f.leases, f.runs)
	}
	_, err = r.SetWeights("cart", map[string]Share{"canary": 100})
	must(t, err)
}

func TestReleaseNeedsTheWholeWord(t *testing.T) {
	_, _, r := releasing(t)
	for _, c := range []struct {
		name   string
		change func(*Release)
		want   error // nil: any
	}{
		{"one of two", func(rel *Release) { rel.Services = []string{"cart"} }, nil},
		{"nothing", func(rel *Release) { rel.Services = nil }, ErrNoService},
		{"unknown service", func(rel *Release) { rel.Services = []string{"cart", "pay", "x"} }, ErrNoService},
		{"unknown version", func(rel *Release) { rel.Version = "x" }, ErrNoVersion},
	} {
		rel := cartV2()
		c.change(&rel)
		if _, err := r.BeginRelease(rel); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, err := r.SetWeights("pay", map[string]Share{"canary": 1})
	must(t, err)
	if _, err := r.BeginRelease(cartV2()); !errors.Is(err, ErrWeighted) {
		t.Errorf("with a share: %v", err)
	}
	if _, err := r.Rollback(); err != nil {
		t.Fatal(err)
	}
	_, err = r.BeginRelease(cartV2())
	must(t, err)
}

// TestReleaseGoesOnWithWhatItWasGivenBack: the breaker may have taken the share
// and given it back while nobody looked.
func TestReleaseGoesOnWithWhatItWasGivenBack(t *testing.T) {
	k, _, r := releasing(t)
	_, err := r.BeginRelease(cartV2())
	must(t, err)
	c, err := r.SetShare("v2", 1, 500)
	must(t, err)
	word, err := r.WordOf("v2")
	must(t, err)
	zero := c.New.Zeroed()
	back, err := zero.Next(c.New.Shares())
	must(t, err)
	k.words[word] = back
	c, err = r.SetShare("v2", 2, 1000)
	must(t, err)
	if c.Old != back || k.words[word].Share(1) != 1000 || k.words[word].Epoch() != back.Epoch()+1 {
		t.Errorf("from %#x to %#x", c.Old, k.words[word])
	}
}

// TestReleaseIsTakenBack: whoever took the weights, a release that did not know
// gets none back.
func TestReleaseIsTakenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		by   func(*Reconciler, *fakeReleases, uint32)
	}{
		{"by the kernel", func(_ *Reconciler, f *fakeReleases, word uint32) { f.takeBack(word) }},
		{"by hand", func(r *Reconciler, _ *fakeReleases, _ uint32) {
			if _, err := r.Rollback("pay"); err != nil {
				t.Error(err)
			}
		}},
		{"by removing its version", func(r *Reconciler, _ *fakeReleases, _ uint32) {
			all := together()
			for i := range all {
				all[i].Versions = all[i].Versions[:1]
			}
			must(t, r.Update(all))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, f, r := releasing(t)
			_, err := r.BeginRelease(cartV2())
			must(t, err)
			_, err = r.SetShare("v2", 1, 500)
			must(t, err)
			word, err := r.WordOf("v2")
			must(t, err)
			c.by(r, f, word)
			if _, err := r.SetShare("v2", 2, 2500); !errors.Is(err, ErrTakenBack) {
				t.Errorf("the next step: %v", err)
			}
			if !k.words[word].IsZero() {
				t.Errorf("the word is %#x", k.words[word])
			}
			if err := r.RenewLease("v2", 5000); f.leases[word].Over() != errors.Is(err, bpf.ErrLeaseOver) {
				t.Errorf("renewing: %v", err)
			}
			must(t, r.EndRelease("v2"))
		})
	}
}

func TestReleaseAfterARestart(t *testing.T) {
	k, f, r := releasing(t)
	_, err := r.BeginRelease(cartV2())
	must(t, err)
	_, err = r.SetShare("v2", 1, 500)
	must(t, err)
	word, err := r.WordOf("v2")
	must(t, err)

	r = restarted(t, k, f)
	if _, err := r.SetShare("v2", 2, 600); !errors.Is(err, ErrNotHeld) {
		t.Errorf("before it is known: %v", err)
	}
	if _, err := r.SetWeights("cart", map[string]Share{"canary": 100}); !errors.Is(err, ErrHeld) {
		t.Errorf("by hand, before it is known: %v", err)
	}
	_, err = r.ResumeRelease(cartV2())
	must(t, err)
	all := together()
	all[0].Frontends = append(all[0].Frontends, service("x", "198.18.0.12:80").Frontends...)
	must(t, r.Update(all))
	if s := salts(k); len(s) != 1 || !s[seedSalt("v2/1")] {
		t.Errorf("salts %v, with a new frontend", s)
	}
	must(t, r.RenewLease("v2", 3000))
	_, err = r.SetShare("v2", 2, 600)
	must(t, err)
	if n, err := r.EndStrayReleases(); n != 0 || err != nil {
		t.Errorf("%d strays: %v", n, err)
	}

	r = restarted(t, k, f) // nobody knows of it
	if n, err := r.EndStrayReleases(); n != 1 || err != nil {
		t.Errorf("%d strays: %v", n, err)
	}
	if !k.words[word].IsZero() || f.leases[word] != 0 || len(f.runs) != 0 {
		t.Errorf("a stray release is left: word %#x, lease %d", k.words[word], f.leases[word])
	}
	if _, err := r.ResumeRelease(cartV2()); !errors.Is(err, bpf.ErrNoRelease) {
		t.Errorf("resuming what has ended: %v", err)
	}
}

// TestReleaseIsNotCarriedAway: a service that leaves its group in the middle of
// a release leaves the share behind.
func TestReleaseIsNotCarriedAway(t *testing.T) {
	k, _, r := releasing(t)
	_, err := r.BeginRelease(cartV2())
	must(t, err)
	_, err = r.SetShare("v2", 1, 500)
	must(t, err)
	all := together()
	all[1].Group = ""
	must(t, r.Update(all))
	st := find(t, r, "pay")
	if word, _ := r.WordOf("v2"); st.Word == word || !k.words[st.Word].IsZero() {
		t.Errorf("pay has the word %d, %#x", st.Word, k.words[st.Word])
	}
}

// TestReleaseThatCannotBegin leaves nothing behind, whichever write fails.
func TestReleaseThatCannotBegin(t *testing.T) {
	for n := 1; ; n++ {
		k, f, r := releasing(t)
		writes := 0
		k.fault = func() bool { writes++; return writes == n }
		_, err := r.BeginRelease(cartV2())
		k.fault = func() bool { return false }
		if err == nil {
			if n < 4 { // two frontends, a grace period, the watch
				t.Errorf("it begins after %d writes", n-1)
			}
			return
		}
		if len(f.runs) != 0 || len(r.holds) != 0 {
			t.Errorf("fault %d: watched %v", n, f.runs)
		}
		if _, err := r.SetWeights("cart", map[string]Share{"canary": 1}); err != nil {
			t.Errorf("fault %d: %v", n, err)
		}
	}
}
