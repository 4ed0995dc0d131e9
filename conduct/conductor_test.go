package conduct

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/rollout"
	"siskin.dev/siskin/rollout/history"
)

// simple is a kernel that does what it is told, and counts nothing.
type simple struct {
	mu     sync.Mutex
	k      rollout.Kernel
	looked func() // once, by the next look, before it reads
}

func (s *simple) store(share rollout.Share) {
	s.k.Share = share
	s.k.Epoch++
}

func (s *simple) do(what func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
	return nil
}

func (s *simple) Look(Target, int) (k rollout.Kernel) {
	s.mu.Lock()
	looked := s.looked
	s.looked = nil
	s.mu.Unlock()
	if looked != nil {
		looked()
	}
	_ = s.do(func() { k = s.k })
	return k
}

func (s *simple) Arm(_ Target, run int, _ Watch, _ Terms) error {
	return s.do(func() { s.k.Held, s.k.Armed, s.k.Leased = true, run, true })
}

func (s *simple) SetWeight(_ Target, _ int, share rollout.Share, from uint8) error {
	var err error
	_ = s.do(func() {
		if from != s.k.Epoch {
			err = errors.New("another epoch")
			return
		}
		s.store(share)
	})
	return err
}

func (s *simple) Rollback(Target, int, rollout.Cut) error {
	return s.do(func() { s.store(0); s.k.Cut = true })
}

func (s *simple) End(Target) error {
	return s.do(func() { s.k.Held, s.k.Armed, s.k.Leased = false, 0, false })
}
func (s *simple) Zero(Target) error                 { return s.do(func() { s.store(0) }) }
func (s *simple) Resume(Target, int) error          { return nil }
func (s *simple) Watch(Target, Watch) error         { return nil }
func (s *simple) Renew(Target, time.Duration) error { return nil }
func (s *simple) Retarget(Target, int, bool) error  { return nil }
func (s *simple) Unfit(Target) string               { return "" }
func (s *simple) Gone(Target, int) string           { return "" }
func (s *simple) Counts(Target) (Counts, error) {
	return Counts{At: time.Duration(bpf.BootNow())}, nil
}

// conducts begins to conduct a release of the service shop, with the history in
// a directory. end ends that.
func conducts(t *testing.T, s *simple, dir, spec string) (c *Conductor, end func()) {
	t.Helper()
	docs, err := api.Read(api.Source{Name: "release.yaml", Data: []byte(`apiVersion: siskin.dev/v1alpha1
kind: Release
metadata: {name: shop-v2}
spec: {services: [shop], version: canary, strategy: {canary: {steps: [{weight: 25%, hold: 10m}]}}` + spec + "}\n")})
	if err != nil {
		t.Fatal(err)
	}
	s.k.Known, s.k.Settled = true, true
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	store := history.Open(filepath.Join(dir, "history.db"), history.Options{})
	c = New(Options{
		Traffic: s, Store: store, Logger: log,
		Now:   func() rollout.Time { return rollout.Time{Boot: time.Duration(bpf.BootNow()), Wall: time.Now()} },
		Event: func(bool, string, string, string) {}, Booked: func(rollout.Decision, string) {}, Forgotten: func(string) {},
	})
	end = sync.OnceFunc(func() {
		c.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	c.Set(docs[0].Release, nil)
	c.Began()
	return c, end
}

// awaitStatus waits until the one release is as wanted.
func awaitStatus(t *testing.T, c *Conductor, what string, is func(Status) bool) rollout.State {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s := c.Statuses()[0]
		switch {
		case is(s):
			return s.State
		case time.Now().After(end):
			t.Fatalf("not %s: %+v, the kernel %+v, %s", what, s.State, s.Kernel, s.Trouble)
		}
	}
}

// A rollback by hand ends the release as what it was, also where a look sees the
// word before it is told.
func TestRollbackByHandEndsTheRelease(t *testing.T) {
	for _, amidst := range []bool{false, true} {
		s := &simple{}
		c, _ := conducts(t, s, t.TempDir(), "")
		if err := c.Command(t.Context(), "shop-v2", rollout.Start, "ada"); err != nil {
			t.Fatal(err)
		}
		awaitStatus(t, c, "at 25 %", func(s Status) bool { return s.Kernel.Share == 2500 })
		c.RolledBack([]string{"another"}, "eve", "siskin rollback another")
		rollback := func() {
			_ = s.do(func() { s.store(0) })
			c.RolledBack([]string{"other", "shop"}, "bob", "siskin rollback other shop")
		}
		if amidst {
			_ = s.do(func() { s.looked = rollback })
		} else {
			rollback()
		}
		state := awaitStatus(t, c, "over", func(s Status) bool { return s.State.Phase.Final() })
		if state.Phase != rollout.RolledBack || state.Cause != rollout.ByHand || state.Reason != "rolled back by hand: siskin rollback other shop" {
			t.Errorf("amidst a look %v: %s, %s: %s", amidst, state.Phase, state.Cause, state.Reason)
		}
		checkBy(t, c, "ada", "bob", rollout.Daemon)
	}
}

// checkBy wants decisions to be by these, each once or more in a row.
func checkBy(t *testing.T, c *Conductor, want ...string) {
	t.Helper()
	decisions, err := c.o.Store.Decisions("shop-v2", 0)
	if err != nil {
		t.Fatal(err)
	}
	var by []string
	for _, d := range decisions {
		if n := len(by); n == 0 || by[n-1] != d.By {
			by = append(by, d.By)
		}
	}
	if strings.Join(by, " ") != strings.Join(want, " ") {
		t.Errorf("decided by %q, want %q", by, want)
	}
}

// Where the history was lost, a release says why it does not start by itself,
// also when the daemon is started once more.
func TestLostHistory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "history.db"), []byte(strings.Repeat("not a history\n", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &simple{}
	waits := func(s Status) bool {
		return s.State.Phase == rollout.Pending && s.State.Reason == "its history was lost: start it with siskin release start shop-v2"
	}
	c, end := conducts(t, s, dir, ", autoStart: true")
	awaitStatus(t, c, "waiting for a person", waits)
	end()
	c, _ = conducts(t, s, dir, ", autoStart: true")
	awaitStatus(t, c, "waiting for a person", func(s Status) bool { return s.Document != nil && waits(s) })
	if err := c.Command(t.Context(), "shop-v2", rollout.Start, "ada"); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, c, "at 25 %", func(s Status) bool { return s.Kernel.Share == 2500 })
}
