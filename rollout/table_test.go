package rollout

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// at brings a world into a phase, the way the real thing gets there.
func at(t *testing.T, p Phase) *world {
	t.Helper()
	w := newWorld(t.Fatalf, examplePlan())
	w.passes()
	w.settle()
	begin := func() {
		if err := w.command(Start); err != nil {
			t.Fatal(err)
		}
	}
	switch p {
	case Pending:
	case Progressing:
		begin()
		w.watch(40 * time.Second)
	case Paused:
		begin()
		w.watch(4 * time.Minute)
	case Promoting:
		begin()
		w.ask(PromoteFull)
		w.look()
	case Succeeded:
		begin()
		if err := w.command(PromoteFull); err != nil {
			t.Fatal(err)
		}
	case RollingBack:
		begin()
		w.watch(40 * time.Second)
		w.fails()
		w.look()
		w.passes()
	case RolledBack:
		begin()
		w.watch(40 * time.Second)
		w.fails()
		w.settle()
		w.passes()
	case Aborted:
		begin()
		if err := w.command(Abort); err != nil {
			t.Fatal(err)
		}
	}
	if w.mem.Phase != p {
		t.Fatalf("is %s, not %s: %s", w.mem.Phase, p, w.mem.Reason)
	}
	return w
}

// An outcome of a command: the phase it leads to at once, and where that leads
// when nothing else happens; or what the refusal says.
type outcome struct {
	next, end Phase
	refusal   string
}

func to(p Phase) outcome          { return outcome{next: p, end: p} }
func by(next, end Phase) outcome  { return outcome{next: next, end: end} }
func refused(says string) outcome { return outcome{refusal: says} }
func table() map[Phase]map[Verb]outcome {
	notStarted, runs, promoting := refused("siskin release start checkout-v2"), refused("runs already"), refused("is being promoted")
	succeeded, rolling, ended := refused("has succeeded"), refused("is rolling back"), refused("siskin release retry checkout-v2")
	idle, taken := refused("does not run"), by(RollingBack, RolledBack)
	return map[Phase]map[Verb]outcome{
		Pending: {Start: to(Progressing), Pause: notStarted, Resume: notStarted, Promote: notStarted, PromoteFull: notStarted,
			Abort: to(Aborted), Retry: notStarted, Undo: notStarted, TakeBack: idle},
		Progressing: {Start: runs, Pause: to(Paused), Resume: refused("is not paused"), Promote: by(Progressing, Paused), PromoteFull: by(Promoting, Succeeded),
			Abort: by(RollingBack, Aborted), Retry: runs, Undo: refused("siskin release abort"), TakeBack: taken},
		Paused: {Start: runs, Pause: to(Paused), Resume: to(Progressing), Promote: to(Progressing), PromoteFull: by(Promoting, Succeeded),
			Abort: by(RollingBack, Aborted), Retry: runs, Undo: refused("siskin release abort"), TakeBack: taken},
		Promoting: {Start: promoting, Pause: promoting, Resume: promoting, Promote: by(Promoting, Succeeded), PromoteFull: by(Promoting, Succeeded),
			Abort: by(RollingBack, Aborted), Retry: promoting, Undo: promoting, TakeBack: taken},
		Succeeded: {Start: succeeded, Pause: succeeded, Resume: succeeded, Promote: succeeded, PromoteFull: succeeded,
			Abort: refused("siskin release undo checkout-v2"), Retry: succeeded, Undo: by(RollingBack, RolledBack), TakeBack: idle},
		RollingBack: {Start: rolling, Pause: rolling, Resume: rolling, Promote: rolling, PromoteFull: rolling,
			Abort: by(RolledBack, RolledBack), Retry: rolling, Undo: rolling, TakeBack: by(RolledBack, RolledBack)},
		RolledBack: {Start: ended, Pause: ended, Resume: ended, Promote: ended, PromoteFull: ended,
			Abort: to(RolledBack), Retry: to(Progressing), Undo: ended, TakeBack: idle},
		Aborted: {Start: ended, Pause: ended, Resume: ended, Promote: ended, PromoteFull: ended,
			Abort: to(Aborted), Retry: to(Progressing), Undo: ended, TakeBack: idle},
	}
}

func TestEveryPhaseTakesOrRefusesEveryCommand(t *testing.T) {
	rows := table()
	if len(rows) != len(Phases()) {
		t.Errorf("%d phases in the table, and there are %d", len(rows), len(Phases()))
	}
	for _, p := range Phases() {
		if len(rows[p]) != len(Verbs()) {
			t.Errorf("%s has rows for %d commands, and there are %d", p, len(rows[p]), len(Verbs()))
		}
		for _, v := range Verbs() {
			t.Run(p.String()+"/"+v.String(), func(t *testing.T) {
				want, ok := rows[p][v]
				if !ok {
					t.Fatalf("no row for %s in %s", v, p)
				}
				w := at(t, p)
				before := w.kernel
				id := w.ask(v)
				w.look()
				err, answered := w.answers[id]
				if !answered {
					t.Fatal("no answer")
				}
				if want.refusal != "" {
					if err == nil || !strings.Contains(err.Error(), want.refusal) || !strings.Contains(err.Error(), "checkout-v2") {
						t.Errorf("want a refusal that says %q, got %v", want.refusal, err)
					}
					return
				}
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				if w.mem.Phase != want.next {
					t.Errorf("leads to %s, want %s", w.mem.Phase, want.next)
				}
				if (v == Abort || v == TakeBack) && p.Active() && w.kernel.share != 0 && before.share != 0 {
					t.Errorf("the abort left %s in the kernel at its first look", w.kernel.share)
				}
				w.settle()
				if w.mem.Phase != want.end {
					t.Errorf("ends as %s, want %s (%s)", w.mem.Phase, want.end, w.mem.Reason)
				}
			})
		}
	}
}

func TestAbortEndsAtStableWhereverItComes(t *testing.T) {
	// After each look of a whole release, an abort.
	for n := 0; ; n++ {
		w := newWorld(t.Fatalf, examplePlan())
		w.passes()
		w.ask(Start)
		looks := n
		for looks > 0 && w.mem.Phase != Succeeded {
			looks--
			if w.mem.Phase == Paused {
				w.ask(PromoteFull)
			}
			w.tick(5 * time.Second)
			w.look()
		}
		if w.mem.Phase == Succeeded {
			if n < 20 {
				t.Errorf("promoted after %d looks: nothing was tested", n)
			}
			return
		}
		if err := w.command(Abort); err != nil {
			t.Fatalf("look %d (%s): %v", n, w.mem.Phase, err)
		}
		if w.mem.Phase != Aborted || w.kernel.share != 0 || w.kernel.promoted != 0 || w.kernel.held {
			t.Fatalf("look %d: %s with %+v", n, w.mem.Phase, w.kernel)
		}
	}
}

func TestAbortComesBeforeWhatElseIsAsked(t *testing.T) {
	w := at(t, Paused)
	ids := []string{w.ask(PromoteFull), w.ask(Resume), w.ask(Abort)}
	w.settle()
	if w.mem.Phase != Aborted || w.answers[ids[2]] != nil || w.answers[ids[0]] == nil {
		t.Errorf("%s, answers %v", w.mem.Phase, w.answers)
	}
}

func TestNamesOfPhasesAreReadAgain(t *testing.T) {
	var seen []string
	for _, p := range Phases() {
		b, err := p.MarshalText()
		var back Phase
		if err != nil || back.UnmarshalText(b) != nil || back != p || slices.Contains(seen, string(b)) {
			t.Errorf("%d is %s, and again %d", p, b, back)
		}
		seen = append(seen, string(b))
	}
	var p Phase
	if p.UnmarshalText([]byte("Gone")) == nil {
		t.Error("an unknown phase was read")
	}
}
