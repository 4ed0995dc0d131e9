package rollout

import "testing"

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

// TestALostStateIsNoPromotion: the runs are counted anew, and the record of a
// promotion from before must not be taken for one of the new run.
func TestALostStateIsNoPromotion(t *testing.T) {
	w := at(t, Succeeded)
	w.mem, w.disk = State{}, State{}
	if err := w.command(Start); err != nil || w.mem.Phase != Progressing || w.mem.Run != 2 || w.kernel.share != 100 {
		t.Errorf("%v, %s in run %d at %s", err, w.mem.Phase, w.mem.Run, w.kernel.share)
	}
}
