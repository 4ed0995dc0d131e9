package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// command carries out what people ask for, an abort before all else.
func (m *machine) command() {
	cmds := slices.Clone(m.o.Commands)
	slices.SortStableFunc(cmds, func(a, b Command) int { return cmp.Compare(urgency(a.Verb), urgency(b.Verb)) })
	for _, c := range cmds {
		err := m.refusal(c.Verb)
		if err == nil {
			m.by = c.By
			m.obey(c)
			m.by = ""
		} else {
			err = fmt.Errorf("release %s: %w", m.plan.Release, err)
		}
		m.do(Answer{ID: c.ID, Err: err})
	}
}

func urgency(v Verb) int {
	switch v {
	case Abort, TakeBack:
		return 0
	case Pause:
		return 1
	}
	return 2
}

// refusal says why a command means nothing now, and which one does.
func (m *machine) refusal(v Verb) error {
	switch phase := m.s.Phase; {
	case v == TakeBack && phase.Active():
		return nil
	case v == TakeBack:
		return errors.New("does not run, so nothing of it is taken back")
	case phase == Pending:
		return m.refusedBefore(v)
	case phase == Progressing, phase == Paused, phase == Promoting:
		return m.refusedWhile(v)
	}
	return m.refusedAfter(v)
}

// refusedBefore is for a release that has not started.
func (m *machine) refusedBefore(v Verb) error {
	switch {
	case v == Start:
		return m.unready()
	case v == Abort:
		return nil
	case v == Undo && m.o.Kernel.Retargeted:
		return fmt.Errorf("cannot be undone any more, since the backends of %[1]s changed: give %[1]s the old ones, and release those", m.plan.Version)
	}
	return fmt.Errorf("has not started: siskin release start %s", m.plan.Release)
}

// refusedWhile is for one on its way up.
func (m *machine) refusedWhile(v Verb) error {
	phase, name := m.s.Phase, m.plan.Release
	switch v {
	case PromoteFull, Abort:
		return nil
	case Promote:
		if phase == Progressing && m.s.Gate != nil {
			return fmt.Errorf("waits for a hook before it goes on; siskin release abort %s goes back", name)
		}
		return nil
	case Undo:
		if phase != Promoting {
			return fmt.Errorf("is not promoted yet: siskin release abort %s goes back", name)
		}
	case Pause:
		if phase != Promoting {
			return nil
		}
	case Resume:
		if phase == Paused {
			return nil
		}
		if phase == Progressing {
			return errors.New("is not paused")
		}
	}
	switch phase {
	case Progressing:
		return errors.New("runs already")
	case Paused:
		return fmt.Errorf("runs already, and is paused: siskin release resume %s", name)
	}
	return fmt.Errorf("is being promoted: siskin release abort %s goes back", name)
}

// refusedAfter is for one at its end, or on its way back.
func (m *machine) refusedAfter(v Verb) error {
	phase, name := m.s.Phase, m.plan.Release
	switch {
	case v == Abort && phase == Succeeded:
		return fmt.Errorf("has succeeded: siskin release undo %s goes back to the old version", name)
	case v == Abort:
		return nil
	case phase == RollingBack:
		return fmt.Errorf("is rolling back: wait for its end, then siskin release retry %s", name)
	case phase == Succeeded && v != Undo:
		return fmt.Errorf("has succeeded: change the backends of %s to release anew, or go back with siskin release undo %s", m.s.Plan.Version, name)
	case phase == Succeeded && m.o.Gone != "":
		return fmt.Errorf("cannot be undone: %s", m.o.Gone)
	case phase == Succeeded && m.o.Holder != "":
		return m.unready()
	case phase == Succeeded:
		return nil
	case v == Retry:
		return m.unready()
	case v == Start:
		return fmt.Errorf("has run already: siskin release retry %s starts it again", name)
	}
	return fmt.Errorf("is at stable: siskin release retry %s starts it again", name)
}

// obey carries out a command that was not refused.
func (m *machine) obey(c Command) {
	switch c.Verb {
	case Start:
		m.begin("started")
	case Retry:
		m.begin("retried")
	case Pause:
		if m.s.Phase == Progressing {
			m.s.Gate, m.s.ByStep = nil, false
			m.enter(Paused, "by a person")
			m.note(false, "ReleasePaused", "by a person")
			m.tell(AtPause)
		}
	case Resume:
		m.resume()
	case Promote:
		if m.s.Phase != Promoting {
			m.advance()
		}
	case PromoteFull:
		if m.s.Phase != Promoting {
			m.raise(len(m.s.Plan.Steps), AtPromote)
		}
	case Abort:
		m.abort()
	case Undo:
		m.back(ByUndo, "everything to the backends that were stable before")
	case TakeBack:
		if m.s.Phase != RollingBack {
			m.back(ByHand, orElse(c.Why, "siskin rollback"))
		}
	}
}

func (m *machine) resume() {
	if m.s.ByStep || m.s.Step < 0 {
		m.advance()
		return
	}
	m.enter(Progressing, "resumed")
	m.note(false, "ReleaseResumed", "step %d of %d", m.s.Step+1, len(m.s.Plan.Steps))
}

func (m *machine) abort() {
	switch m.s.Phase {
	case Pending:
		m.s.Cause = ByAbort
		m.enter(Aborted, "aborted before it started")
		m.note(false, "Aborted", "before it started")
	case Progressing, Paused, Promoting:
		m.back(ByAbort, "by a person")
	}
}
