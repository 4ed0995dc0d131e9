package rollout

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A story is a release from end to end, with what may come out of it. play is
// called with a fresh world and may be cut short at any operation by a kill.
type story struct {
	name string
	play func(*world)
	ends []Phase
}

// until looks every five seconds until the phase is reached.
func (w *world) until(p Phase) {
	for range 2000 {
		if w.mem.Phase == p {
			return
		}
		w.tick(5 * time.Second)
		w.look()
	}
	w.fail("never became %s: %s, %s", p, w.mem.Phase, w.mem.Reason)
}

// unto is until for whichever of several phases comes first.
func (w *world) unto(ps ...Phase) {
	for range 2000 {
		if slices.Contains(ps, w.mem.Phase) && len(w.commands) == 0 {
			return
		}
		w.tick(5 * time.Second)
		w.look()
	}
	w.fail("became none of %v: %s, %s", ps, w.mem.Phase, w.mem.Reason)
}

func started(w *world) {
	w.passes()
	w.ask(Start)
	w.until(Progressing)
}

func stories() []story {
	final := []Phase{Succeeded, RolledBack, Aborted}
	return []story{
		{"good", func(w *world) {
			started(w)
			w.until(Paused)
			w.ask(Promote)
			w.unto(final...)
		}, []Phase{Succeeded}},
		{"good without fail-safe", func(w *world) {
			w.plan.FailSafe = false
			started(w)
			w.until(Paused)
			w.ask(Resume)
			w.unto(final...)
		}, []Phase{Succeeded}},
		{"with hooks", func(w *world) {
			w.plan.Hooks = []Hook{{Name: "gate", Before: []Moment{AtStart, AtStep, AtPromote}},
				{Name: "tell", After: []Moment{AtStart, AtStep, AtPause, AtPromote, AtRollback}}}
			started(w)
			w.until(Paused)
			w.ask(Promote)
			w.unto(final...)
		}, []Phase{Succeeded}},
		{"judged worse", func(w *world) {
			started(w)
			w.until(Paused)
			w.fails()
			w.unto(final...)
		}, []Phase{RolledBack}},
		{"breaker", func(w *world) {
			started(w)
			w.watch(40 * time.Second)
			w.kernel.latched = BreakerTripped
			w.unto(final...)
		}, []Phase{RolledBack}},
		{"lease", func(w *world) {
			started(w)
			w.watch(40 * time.Second)
			w.kernel.latched, w.kernel.leased = LeaseEnded, false
			w.unto(final...)
		}, []Phase{RolledBack}},
		{"abort while paused", func(w *world) {
			started(w)
			w.until(Paused)
			w.ask(Abort)
			w.unto(final...)
		}, []Phase{Aborted, RolledBack}},
		{"abort while promoting", func(w *world) {
			started(w)
			w.ask(PromoteFull)
			w.unto(Promoting, Succeeded)
			w.ask(Abort)
			w.unto(final...)
		}, []Phase{Aborted, RolledBack, Succeeded}},
		{"undo", func(w *world) {
			started(w)
			w.ask(PromoteFull)
			w.unto(final...)
			w.ask(Undo)
			w.unto(final...)
		}, []Phase{RolledBack}},
		{"retry", func(w *world) {
			started(w)
			w.ask(Abort)
			w.unto(Aborted, RolledBack)
			w.ask(Retry)
			w.until(Progressing)
			w.ask(PromoteFull)
			w.unto(final...)
		}, []Phase{Succeeded}},
		{"deleted", func(w *world) {
			started(w)
			w.watch(40 * time.Second)
			w.deleted = true
			w.unto(final...)
			w.settle()
			if !w.forgot {
				w.fail("the release was not forgotten")
			}
		}, []Phase{RolledBack}},
	}
}

// TestDyingAnywhereConverges kills the executor before each of its operations
// in turn: every action, the save, and what comes after.
func TestDyingAnywhereConverges(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			killed := true
			n := 0
			for ; killed; n++ {
				w := newWorld(nil, examplePlan())
				w.fail = func(f string, a ...any) {
					t.Helper()
					t.Fatalf("killed at operation %d: "+f, append([]any{n}, a...)...)
				}
				w.kill = n
				s.play(w)
				killed = w.kill < 0
				w.settle()
				if !slices.Contains(s.ends, w.mem.Phase) {
					t.Fatalf("killed at operation %d: ends as %s (%s), want one of %v", n, w.mem.Phase, w.mem.Reason, s.ends)
				}
				if promoted := w.kernel.promoted == w.mem.Run; w.kernel.share != 0 || w.kernel.held || promoted != (w.mem.Phase == Succeeded) {
					t.Fatalf("killed at operation %d: %s with %+v", n, w.mem.Phase, w.kernel)
				}
			}
			if n < 15 {
				t.Errorf("only %d places to die at", n)
			}
			t.Logf("%d places to die at", n-1)
		})
	}
}

// TestAKilledRollbackIsNotTakenUpAgain is the worst moment: the word is zero,
// and nobody wrote down why.
func TestAKilledRollbackIsNotTakenUpAgain(t *testing.T) {
	for _, step := range []string{"first", "later"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t.Fatalf, examplePlan())
			w.passes()
			w.ask(Start)
			w.settle()
			if step == "later" {
				w.watch(40 * time.Second)
			}
			w.fails()
			w.kill = 1 // after the rollback, before the save
			w.look()
			if !w.killed || w.kernel.share != 0 || w.mem.Phase != Progressing {
				t.Fatalf("not the moment that was meant: %+v, %s", w.kernel, w.mem.Phase)
			}
			w.passes() // and the judge has forgotten
			w.settle()
			if w.mem.Phase != RolledBack || w.mem.Cause != FoundAtStable {
				t.Errorf("%s, %s: %s", w.mem.Phase, w.mem.Cause, w.mem.Reason)
			}
		})
	}
}

// TestTakenBackBeforeItWasSeen: raised and taken back, and neither was saved.
func TestTakenBackBeforeItWasSeen(t *testing.T) {
	w := newWorld(t.Fatalf, examplePlan())
	w.passes()
	w.ask(Start)
	for w.kernel.share == 0 {
		w.look()
	}
	w.kernel.store(0)
	w.settle()
	if w.mem.Phase != RolledBack || w.mem.Cause != FoundAtStable {
		t.Errorf("%s, %s at %s", w.mem.Phase, w.mem.Cause, w.kernel.share)
	}
}

// TestAFullDiskStopsNothing: the last state that was saved is old, and steering
// goes on; a daemon that starts from it ends somewhere that is safe.
func TestAFullDiskStopsNothing(t *testing.T) {
	for looks := range 60 {
		w := newWorld(t.Fatalf, examplePlan())
		w.passes()
		w.ask(Start)
		w.settle()
		w.full = true
		for range looks {
			w.tick(10 * time.Second)
			w.look()
			if w.mem.Phase == Paused {
				w.ask(PromoteFull)
			}
		}
		if w.mem.Phase == Succeeded {
			t.Fatal("promoted without writing it down")
		}
		w.restart()
		w.full = false
		w.fails()
		w.settle()
		if w.mem.Phase != RolledBack || w.kernel.share != 0 || w.kernel.held {
			t.Fatalf("%d looks: %s, %+v", looks, w.mem.Phase, w.kernel)
		}
	}
}

func ExampleStep() {
	w := newWorld(func(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }, examplePlan())
	w.passes()
	w.ask(Start)
	w.settle()
	w.watch(35 * time.Second)
	w.fails()
	w.settle()
	for _, d := range w.booked {
		fmt.Printf("%s → %s: %s\n", d.From, d.To, d.Reason)
	}
	// Output:
	// Pending → Progressing: started
	// Progressing → Progressing: step 1 of 4: 1%
	// Progressing → Progressing: step 2 of 4: 5%
	// Progressing → RollingBack: 12 of 240 requests failed, stable 3 of 4,800
	// RollingBack → RolledBack: judged worse: 12 of 240 requests failed, stable 3 of 4,800
}
