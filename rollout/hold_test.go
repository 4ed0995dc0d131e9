package rollout

import (
	"strings"
	"testing"
	"time"

	"siskin.dev/siskin/analysis"
)

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
