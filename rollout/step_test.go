package rollout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
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
