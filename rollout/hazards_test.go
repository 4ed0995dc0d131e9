package rollout

import (
	"strings"
	"testing"
	"time"
)

func TestARestartOfTheHostComesBackAtStable(t *testing.T) {
	for _, waited := range []time.Duration{0, 40 * time.Second} {
		w := begun(t, examplePlan())
		w.watch(waited)
		w.kernel = kernel{}
		w.now.BootID, w.now.Boot = "two", time.Minute
		w.restart()
		w.settle()
		if w.mem.Phase != RolledBack {
			t.Errorf("after %s: %s at %s", waited, w.mem.Phase, w.kernel.share)
		}
		// The daemon may have put the old weight back; without the lease it is nothing.
		w = begun(t, examplePlan())
		w.watch(waited)
		w.kernel = kernel{share: w.kernel.share}
		w.now.BootID, w.now.Boot = "two", time.Minute
		w.restart()
		w.settle()
		if w.mem.Phase != RolledBack || w.mem.Cause != FoundAtStable {
			t.Errorf("after %s, weight kept: %s, %s", waited, w.mem.Phase, w.mem.Cause)
		}
	}
}

func TestWithoutFailSafeTheStepGoesOnOverADeadDaemon(t *testing.T) {
	plan := examplePlan()
	plan.FailSafe = false
	w := begun(t, plan)
	w.watch(40 * time.Second)
	w.restart()
	w.tick(12 * time.Hour)
	w.settle()
	if w.mem.Phase != Progressing || w.mem.Step != 1 || w.kernel.share != 500 || w.mem.Held > 80*time.Second {
		t.Errorf("%s, step %d held for %s, %+v", w.mem.Phase, w.mem.Step, w.mem.Held, w.kernel)
	}
	w.kernel.latched = BreakerTripped
	w.settle()
	if w.mem.Phase != RolledBack || w.mem.Cause != ByBreaker {
		t.Errorf("%s, %s", w.mem.Phase, w.mem.Cause)
	}
}

func TestAVersionThatCannotServe(t *testing.T) {
	w := at(t, Pending)
	w.unfit = "none of its 2 backends is healthy"
	if err := w.command(Start); err == nil || !strings.Contains(err.Error(), "2 backends") {
		t.Errorf("%v", err)
	}
	w = at(t, Paused)
	w.unfit = "none of its 2 backends is healthy"
	w.settle()
	if w.mem.Phase != RolledBack || w.mem.Cause != Unfit {
		t.Errorf("%s, %s", w.mem.Phase, w.mem.Cause)
	}
}

// TestARollbackByHandIsNamed: the word was zeroed, and whose command that was
// comes with the look that shows it.
func TestARollbackByHandIsNamed(t *testing.T) {
	for _, p := range []Phase{Progressing, Paused, Promoting} {
		w := at(t, p)
		w.kernel.store(0)
		w.home, w.allNew = true, false
		w.commands = append(w.commands, Command{ID: "hand", Verb: TakeBack, By: "ada", Why: "siskin rollback checkout"})
		w.settle()
		if w.mem.Phase != RolledBack || w.mem.Cause != ByHand || w.mem.Reason != "rolled back by hand: siskin rollback checkout" {
			t.Errorf("from %s: %s, %s: %s", p, w.mem.Phase, w.mem.Cause, w.mem.Reason)
		}
		n := len(w.booked)
		if by := [2]string{w.booked[n-2].By, w.booked[n-1].By}; by != [2]string{"ada", Daemon} {
			t.Errorf("from %s: decided by %q", p, by)
		}
	}
}

func TestBlindNothingGoesUpAndEverythingComesDown(t *testing.T) {
	plan := examplePlan()
	plan.Cut = Cut{}
	w := begun(t, plan)
	w.unknown = true
	w.watch(time.Hour / 20)
	if w.mem.Step != 0 {
		t.Fatalf("went on to step %d without seeing the kernel", w.mem.Step)
	}
	w.fails()
	w.look()
	if w.kernel.share != 0 {
		t.Errorf("%s after the rollback was decided", w.kernel.share)
	}
	w.look()
	if w.mem.Phase != RollingBack {
		t.Errorf("%s, and nobody has seen it", w.mem.Phase)
	}
	w.unknown = false
	w.settle()
	if w.mem.Phase != RolledBack {
		t.Errorf("%s", w.mem.Phase)
	}
}

func TestTheWayBackEndsWhenConnectionsAreDealtWith(t *testing.T) {
	p := examplePlan()
	s := State{Phase: RollingBack, End: RolledBack, Run: 1, Plan: p, Cause: ByJudge}
	o := Observations{Kernel: Kernel{Known: true, Held: true, Leased: true}}
	next, actions := Step(p, s, o, Time{})
	if _, again := actions[0].(Rollback); next.Phase != RollingBack || !again {
		t.Errorf("%s, %v", next.Phase, actions)
	}
	o.Kernel.Cut = true
	if next, _ = Step(p, s, o, Time{}); next.Phase != RolledBack {
		t.Errorf("%s", next.Phase)
	}
}

func TestWhatTheKernelLatchedIsNamed(t *testing.T) {
	p := examplePlan()
	s := State{Phase: Paused, Run: 1, Plan: p, Armed: true, Confirmed: true, Base: Word{100, 4}}
	for latch, cause := range map[Latch]Cause{LeaseEnded: ByLease, BreakerTripped: ByBreaker} {
		o := Observations{Kernel: Kernel{Known: true, Held: true, Armed: 1, Leased: true, Latched: latch, Epoch: 5, Evidence: "five of five"}}
		if next, _ := Step(p, s, o, Time{}); next.Cause != cause {
			t.Errorf("%v: %s", latch, next.Cause)
		}
	}
}

// TestABreakerThatClosedAgainIsTold: with nobody there, the kernel took the
// version out and back in; the release goes on, and says so once.
func TestABreakerThatClosedAgainIsTold(t *testing.T) {
	p := examplePlan()
	p.FailSafe = false
	s := State{Phase: Progressing, Run: 1, Plan: p, Armed: true, Confirmed: true}
	s.Base = Word{s.Weight(), 4}
	o := Observations{Kernel: Kernel{Known: true, Held: true, Armed: 1, Share: s.Weight(), Epoch: 7, Closed: 1}}
	for i, want := range []int{1, 0} {
		next, actions := Step(p, s, o, Time{})
		told := 0
		for _, a := range actions {
			if n, ok := a.(Note); ok && n.Reason == "BreakerClosed" {
				told++
			}
		}
		if told != want || next.Phase != Progressing || next.Base.Epoch != 7 {
			t.Errorf("look %d: told %d times, want %d; %s, %+v", i+1, told, want, next.Phase, next.Base)
		}
		s = next
	}
}

// TestARollbackDoesNotWaitForOtherTables: what never touched stable's backends
// is over as soon as the word is zero.
func TestARollbackDoesNotWaitForOtherTables(t *testing.T) {
	w := at(t, Paused)
	w.broken = true
	if err := w.command(Abort); err != nil || w.mem.Phase != Aborted {
		t.Errorf("%v, %s", err, w.mem.Phase)
	}
}
