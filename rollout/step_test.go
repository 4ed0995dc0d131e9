package rollout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"siskin.dev/siskin/analysis"
)

func begun(t *testing.T, plan Plan) *world {
	t.Helper()
	w := newWorld(t.Fatalf, plan)
	w.passes()
	if err := w.command(Start); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) noted(reason string) bool {
	for _, n := range w.notes {
		if n.Reason == reason {
			return true
		}
	}
	return false
}

func TestAStepEndsOnItsHoldAndTheJudge(t *testing.T) {
	w := begun(t, examplePlan())
	w.watch(29 * time.Second)
	if w.mem.Step != 0 || w.kernel.share != 100 {
		t.Fatalf("step %d at %s before the hold was over", w.mem.Step, w.kernel.share)
	}
	for name, j := range map[string]*Judgment{
		"nobody judged": nil,
		"no data":       {Verdict: analysis.NoData, Reason: "no request yet"},
		"inconclusive":  {Verdict: analysis.Inconclusive, Reason: "may still hide 3.3 %"},
		"pass, waiting": {Verdict: analysis.Pass, Waiting: []string{"41 of 100 requests"}},
	} {
		w.judge = j
		w.watch(10 * time.Minute)
		if w.mem.Step != 0 || w.mem.Phase != Progressing || len(w.mem.Waiting) == 0 {
			t.Fatalf("%s: step %d, %s, waits for %q", name, w.mem.Step, w.mem.Phase, w.mem.Waiting)
		}
	}
	w.passes()
	w.watch(2 * time.Second)
	if w.mem.Step != 1 || w.kernel.share != 500 {
		t.Fatalf("step %d at %s", w.mem.Step, w.kernel.share)
	}
}

func TestAPassOfAnotherStepIsNotHeeded(t *testing.T) {
	p := examplePlan()
	s := State{Phase: Progressing, Run: 2, Step: 1, Plan: p, Armed: true, Confirmed: true, Held: time.Hour, Base: Word{500, 7}}
	o := Observations{Kernel: Kernel{Known: true, Share: 500, Epoch: 7, Held: true, Leased: true, Armed: 2}}
	for name, c := range map[string]struct {
		run, step int
		verdict   analysis.Verdict
		want      Phase
		at        int
	}{
		"this step":       {2, 1, analysis.Pass, Progressing, 2},
		"the step before": {2, 0, analysis.Pass, Progressing, 1},
		"the run before":  {1, 1, analysis.Fail, Progressing, 1},
		"worse, earlier":  {2, 0, analysis.Fail, RollingBack, 1},
	} {
		o.Judgment = &Judgment{Run: c.run, Step: c.step, Verdict: c.verdict}
		if next, _ := Step(p, s, o, Time{}); next.Phase != c.want || next.Step != c.at {
			t.Errorf("%s: %s at step %d", name, next.Phase, next.Step)
		}
	}
}

func TestInconclusiveAborts(t *testing.T) {
	plan := examplePlan()
	plan.AbortAfter = time.Minute
	w := begun(t, plan)
	w.judge = &Judgment{Verdict: analysis.Inconclusive, Reason: "may still hide 3.3 %"}
	w.watch(89 * time.Second)
	if w.mem.Phase != Progressing {
		t.Fatalf("%s before its time: %s", w.mem.Phase, w.mem.Reason)
	}
	w.watch(2 * time.Second)
	if w.mem.Phase != RolledBack || w.mem.Cause != Undecided || !strings.Contains(w.mem.Reason, "3.3 %") {
		t.Errorf("%s, %s: %s", w.mem.Phase, w.mem.Cause, w.mem.Reason)
	}
}

func TestTheDeadlineLeavesPausesOut(t *testing.T) {
	plan := examplePlan()
	plan.Deadline = 10 * time.Minute
	w := begun(t, plan)
	w.watch(4 * time.Minute)
	if w.mem.Phase != Paused || !w.mem.ByStep {
		t.Fatalf("%s", w.mem.Phase)
	}
	w.watch(12 * time.Hour / 60)
	if err := w.command(Resume); err != nil || w.mem.Step != 3 || w.mem.Phase != Progressing {
		t.Fatalf("%v, step %d, %s", err, w.mem.Step, w.mem.Phase)
	}
	w.judge = &Judgment{Verdict: analysis.Inconclusive}
	w.watch(8 * time.Minute)
	if w.mem.Phase != RolledBack || w.mem.Cause != ByDeadline {
		t.Errorf("%s, %s", w.mem.Phase, w.mem.Cause)
	}
}

func TestClocksThatJumpSkipNothing(t *testing.T) {
	for name, jump := range map[string]func(*Time){
		"the time of day, forward": func(n *Time) { n.Wall = n.Wall.Add(5 * time.Hour) },
		"the time of day, back":    func(n *Time) { n.Wall = n.Wall.Add(-5 * time.Hour) },
		"the machine slept":        func(n *Time) { n.Boot += 5 * time.Hour },
		"boot time, back":          func(n *Time) { n.Boot -= 30 * time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			plan := examplePlan()
			plan.Deadline, plan.AbortAfter = time.Hour, time.Hour
			plan.Steps[0].For = 5 * time.Minute
			w := begun(t, plan)
			w.watch(100 * time.Second)
			jump(&w.now)
			w.settle()
			if w.mem.Phase != Progressing || w.mem.Step != 0 || w.mem.Held > 160*time.Second || w.mem.Held < 99*time.Second {
				t.Fatalf("%s, step %d, held %s", w.mem.Phase, w.mem.Step, w.mem.Held)
			}
			w.watch(201 * time.Second)
			if w.mem.Step != 1 {
				t.Errorf("step %d after the hold", w.mem.Step)
			}
		})
	}
}

func TestHoldsAreKeptOverRestarts(t *testing.T) {
	w := begun(t, examplePlan())
	w.watch(20 * time.Second)
	w.restart()
	w.watch(11 * time.Second)
	if w.mem.Step != 1 {
		t.Errorf("step %d after 31 s of a hold of 30 s", w.mem.Step)
	}
}

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

func TestHooksMayRefuseTheWayUpOnly(t *testing.T) {
	plan := examplePlan()
	plan.Hooks = []Hook{{Name: "gate", Before: []Moment{AtStep, AtPromote}}, {Name: "tell", After: []Moment{AtRollback}}}
	w := newWorld(t.Fatalf, plan)
	w.passes()
	w.hookOK = func(RunHook) *HookResult { return &HookResult{Reason: "not on a Friday"} }
	if err := w.command(Start); err != nil {
		t.Fatal(err)
	}
	w.watch(2 * time.Minute)
	if w.mem.Step != 0 || w.kernel.share != 100 || !w.noted("HookRefused") || !strings.Contains(strings.Join(w.mem.Waiting, ""), "Friday") {
		t.Fatalf("step %d at %s, waits for %q", w.mem.Step, w.kernel.share, w.mem.Waiting)
	}
	if n := len(w.hooks); n < 3 || n > 5 {
		t.Errorf("asked %d times in 90 s", n)
	}
	if err := w.command(Promote); err == nil {
		t.Error("promoted past the gate")
	}
	w.hookOK = func(RunHook) *HookResult { return nil } // and now it hangs
	w.watch(time.Minute)
	w.fails()
	w.look()
	if w.kernel.share != 0 {
		t.Fatalf("a hook that hangs held the rollback up: %s", w.kernel.share)
	}
	w.settle()
	if w.mem.Phase != RolledBack || len(w.mem.Outbox) != 1 {
		t.Fatalf("%s, outbox %v", w.mem.Phase, w.mem.Outbox)
	}
	key := w.mem.Outbox[0].Key
	w.restart()
	w.look()
	if w.mem.Outbox[0].Key != key {
		t.Error("another key after a restart")
	}
	w.hookOK = func(RunHook) *HookResult { return &HookResult{OK: true} }
	w.look()
	w.look()
	if len(w.mem.Outbox) != 0 {
		t.Errorf("told, and still in the outbox: %v", w.mem.Outbox)
	}
}

func TestAnEditTakesWhatChangesNothingUnderWay(t *testing.T) {
	w := begun(t, examplePlan())
	w.plan.Steps = []Hold{{Weight: 9000, For: time.Minute}}
	w.plan.Cut, w.plan.Lease = Cut{Connections: "keep"}, time.Minute
	w.settle()
	if w.mem.Plan.Steps[0].Weight != 100 || w.mem.Plan.Cut.Connections != "keep" || w.mem.Plan.Lease != 10*time.Second {
		t.Errorf("the plan under way is %+v", w.mem.Plan)
	}
	if !w.noted("EditWaits") || len(w.mem.Waits) != 2 {
		t.Errorf("waits %q", w.mem.Waits)
	}
	n := len(w.notes)
	w.settle()
	if len(w.notes) != n {
		t.Error("says it twice")
	}
	if w.command(Abort) != nil || w.command(Retry) != nil || w.kernel.share != 9000 {
		t.Errorf("after the retry: %s at %s", w.mem.Phase, w.kernel.share)
	}
}

func TestANewTargetMakesAFinishedReleaseReady(t *testing.T) {
	for _, auto := range []bool{false, true} {
		w := at(t, Succeeded)
		w.plan.AutoStart = auto
		w.settle()
		if w.mem.Phase != Succeeded {
			t.Fatalf("started again by itself: %s", w.mem.Phase)
		}
		w.plan.Target = "10.1.0.9:8080"
		w.settle()
		if want := map[bool]Phase{false: Pending, true: Progressing}[auto]; w.mem.Phase != want {
			t.Errorf("autoStart %v: %s, want %s", auto, w.mem.Phase, want)
		}
		if err := w.command(Undo); !auto && (err == nil || !strings.Contains(err.Error(), "the backends of canary changed") || w.kernel.promoted != 1) {
			t.Errorf("undo of what was promoted before: %v, %+v", err, w.kernel)
		}
	}
}

// TestALostReleaseWaitsForAPerson, over restarts, and says so.
func TestALostReleaseWaitsForAPerson(t *testing.T) {
	plan := examplePlan()
	plan.AutoStart = true
	w := newWorld(t.Fatalf, plan)
	w.mem.Lost = true
	w.settle()
	w.restart()
	w.settle()
	if w.mem.Phase != Pending || w.mem.Reason != "its history was lost: start it with siskin release start checkout-v2" {
		t.Errorf("%s: %s", w.mem.Phase, w.mem.Reason)
	}
	if err := w.command(Start); err != nil || w.mem.Phase != Progressing || w.mem.Lost {
		t.Errorf("%v, %s: %s", err, w.mem.Phase, w.mem.Reason)
	}
}

func TestTwoReleasesDoNotShareAService(t *testing.T) {
	w := at(t, Pending)
	w.holder = "checkout-v1"
	if err := w.command(Start); err == nil || !strings.Contains(err.Error(), "checkout-v1") || !strings.Contains(err.Error(), "service checkout") {
		t.Errorf("%v", err)
	}
	w.plan.AutoStart = true
	w.settle()
	if w.mem.Phase != Pending || len(w.mem.Waiting) != 1 {
		t.Errorf("%s, %q", w.mem.Phase, w.mem.Waiting)
	}
	w.holder = ""
	w.settle()
	if w.mem.Phase != Progressing {
		t.Errorf("%s after the other one ended", w.mem.Phase)
	}
	claims := []Claim{{"a", Paused, []string{"cart", "checkout"}}, {"b", Succeeded, []string{"shop"}}}
	if h, s := Claimed("c", []string{"shop", "checkout"}, claims); h != "a" || s != "checkout" {
		t.Errorf("%s holds %s", h, s)
	}
	if h, _ := Claimed("a", []string{"cart"}, claims); h != "" {
		t.Errorf("a release is in its own way: %s", h)
	}
	if err := WeightsFree("cart", claims); err == nil || !strings.Contains(err.Error(), "siskin release abort a") {
		t.Errorf("%v", err)
	}
	if err := WeightsFree("shop", claims); err != nil {
		t.Error(err)
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

func TestUndoNeedsTheOldBackends(t *testing.T) {
	w := at(t, Succeeded)
	w.gone = "10.1.0.2:8080 was removed"
	if err := w.command(Undo); err == nil || !strings.Contains(err.Error(), "10.1.0.2:8080") {
		t.Errorf("%v", err)
	}
	w.gone = ""
	if err := w.command(Undo); err != nil || w.mem.Phase != RolledBack || w.mem.Cause != ByUndo || w.kernel.promoted != 0 {
		t.Errorf("%v, %s, %+v", err, w.mem.Phase, w.kernel)
	}
}

func TestAWeightSetBeforeTheStartIsTakenBack(t *testing.T) {
	w := at(t, Pending)
	w.kernel.store(3000)
	if err := w.command(Start); err != nil || w.kernel.share != 100 {
		t.Errorf("%v, %s", err, w.kernel.share)
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

func TestWhatALostStateLeftBehindIsCleared(t *testing.T) {
	w := at(t, Pending)
	w.kernel = kernel{share: 500, epoch: 9, held: true, leased: true}
	w.settle()
	if w.kernel.share != 0 || w.kernel.held {
		t.Errorf("%+v", w.kernel)
	}
	// A weight set by hand is no release's, and is left alone.
	w.kernel = kernel{share: 500, epoch: 9}
	w.settle()
	if w.kernel.share != 500 {
		t.Errorf("%+v", w.kernel)
	}
}

func TestTheHoldBeginsWithTheWeight(t *testing.T) {
	w := begun(t, examplePlan())
	w.stuck = true
	for range 300 { // it never comes to rest: the weight is tried at every look
		w.tick(time.Second)
		w.look()
	}
	if w.mem.Step != 1 || w.mem.Held != 0 || w.kernel.share != 100 {
		t.Errorf("step %d, held for %s without its weight", w.mem.Step, w.mem.Held)
	}
	if err := w.pause(); err != nil {
		t.Fatal(err)
	}
	w.stuck = false
	w.settle()
	if w.kernel.share != 100 {
		t.Errorf("went up to %s while paused", w.kernel.share)
	}
	if err := w.command(Resume); err != nil || w.kernel.share != 500 {
		t.Errorf("%v, %s", err, w.kernel.share)
	}
}

// pause asks in a world that does not come to rest.
func (w *world) pause() error {
	id := w.ask(Pause)
	w.look()
	return w.answers[id]
}

func TestTimeIsNotCountedOverARestartOfTheHost(t *testing.T) {
	last := Time{BootID: "one", Boot: time.Minute}
	for _, c := range []struct {
		now  Time
		want time.Duration
	}{
		{Time{BootID: "one", Boot: time.Minute + time.Second}, time.Second},
		{Time{BootID: "one", Boot: time.Second}, 0},
		{Time{BootID: "one", Boot: time.Hour}, maxGap},
		{Time{BootID: "two", Boot: time.Minute + time.Second}, 0},
	} {
		if got := c.now.since(last); got != c.want {
			t.Errorf("%+v: %s, want %s", c.now, got, c.want)
		}
	}
}

// TestAPromotionThatWasNotSavedIsFinished: the disk took the promotion's record
// and no state after that.
func TestAPromotionThatWasNotSavedIsFinished(t *testing.T) {
	for _, share := range []Share{Whole, 0} {
		w := at(t, Paused)
		w.kernel.store(share)
		w.kernel.promoted, w.kernel.tables = w.mem.Run, w.mem.Run
		w.settle()
		if w.mem.Phase != Succeeded || w.kernel.share != 0 || w.kernel.promoted == 0 {
			t.Errorf("found at %s: %s, %+v", share, w.mem.Phase, w.kernel)
		}
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

func TestADeletedReleaseTellsItsHooksFirst(t *testing.T) {
	plan := examplePlan()
	plan.Hooks = []Hook{{Name: "tell", After: []Moment{AtRollback}}}
	w := newWorld(t.Fatalf, plan)
	w.passes()
	w.hookOK = func(RunHook) *HookResult { return nil }
	if err := w.command(Start); err != nil {
		t.Fatal(err)
	}
	w.deleted = true
	w.settle()
	if w.mem.Phase != RolledBack || w.forgot {
		t.Fatalf("%s, forgotten %v", w.mem.Phase, w.forgot)
	}
	w.hookOK = func(RunHook) *HookResult { return &HookResult{OK: true} }
	w.look()
	w.look()
	if !w.forgot {
		t.Error("not forgotten after it was told")
	}
}

func TestExecuteKeepsTheOrder(t *testing.T) {
	actions := []Action{Note{Reason: "A"}, Zero{}, RetargetStable{}, End{}, Answer{ID: "1"}}
	for name, c := range map[string]struct {
		fails Action
		want  string
	}{
		"all well":      {nil, "[set the weight to zero retarget stable to the version's backends watch it no more saved A:  answer 1: <nil>]"},
		"traffic fails": {RetargetStable{}, "[set the weight to zero retarget stable to the version's backends saved A:  answer 1: <nil>]"},
		"a note fails":  {Note{Reason: "A"}, "[set the weight to zero retarget stable to the version's backends watch it no more saved A:  answer 1: <nil>]"},
	} {
		var done []string
		err := Execute(actions, func(a Action) error {
			done = append(done, a.String())
			if a == c.fails {
				return errRefused
			}
			return nil
		}, func() error { done = append(done, "saved"); return nil })
		if got := fmt.Sprint(done); got != c.want || (err != nil) != (c.fails != nil) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if err := Execute(nil, nil, func() error { return errRefused }); !errors.Is(err, errRefused) {
		t.Errorf("a save that fails gives %v", err)
	}
}

// TestTablesThatCannotBeChanged: the promotion is on record, and the maps do not
// follow. Nothing may go to zero before they do, and whoever aborts then must
// not find the version promoted later.
func TestTablesThatCannotBeChanged(t *testing.T) {
	promoting := func() *world {
		w := at(t, Promoting)
		w.broken = true
		for range 20 {
			w.look()
		}
		if w.mem.Phase != Promoting || w.kernel.share != Whole || w.kernel.promoted == 0 {
			t.Fatalf("%s, %+v", w.mem.Phase, w.kernel)
		}
		return w
	}
	w := promoting()
	w.broken = false
	w.settle()
	if w.mem.Phase != Succeeded {
		t.Errorf("%s after the maps follow again", w.mem.Phase)
	}
	w = promoting()
	if err := w.command(Abort); err != nil || w.kernel.share != 0 || w.kernel.promoted != 0 || w.mem.Phase != RollingBack {
		t.Errorf("%v, %s, %+v", err, w.mem.Phase, w.kernel)
	}
	w.broken = false
	w.settle()
	if w.mem.Phase != Aborted || w.kernel.tables != 0 {
		t.Errorf("%s, %+v", w.mem.Phase, w.kernel)
	}
	w = promoting()
	w.kernel.store(0) // by hand
	w.settle()
	w.broken = false
	w.settle()
	if w.mem.Phase != RolledBack || w.kernel.tables != 0 {
		t.Errorf("taken back by hand: %s, %+v", w.mem.Phase, w.kernel)
	}
	w = at(t, Succeeded)
	w.broken = true
	if err := w.command(Undo); err != nil || w.mem.Phase != RollingBack {
		t.Errorf("%v, %s while the tables are as they were", err, w.mem.Phase)
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

// TestALostStateIsNoPromotion: the runs are counted anew, and the record of a
// promotion from before must not be taken for one of the new run.
func TestALostStateIsNoPromotion(t *testing.T) {
	w := at(t, Succeeded)
	w.mem, w.disk = State{}, State{}
	if err := w.command(Start); err != nil || w.mem.Phase != Progressing || w.mem.Run != 2 || w.kernel.share != 100 {
		t.Errorf("%v, %s in run %d at %s", err, w.mem.Phase, w.mem.Run, w.kernel.share)
	}
}
