package rollout

import (
	"cmp"
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
	no := func(format string, args ...any) error { return fmt.Errorf(format, args...) }
	name := m.plan.Release
	if v == TakeBack {
		if !m.s.Phase.Active() {
			return no("does not run, so nothing of it is taken back")
		}
		return nil
	}
	switch m.s.Phase {
	case Pending:
		switch v {
		case Start:
			return m.unready()
		case Abort:
			return nil
		case Undo:
			if m.o.Kernel.Retargeted {
				return no("cannot be undone any more, since the backends of %s changed: give %s the old ones, and release those", m.plan.Version, m.plan.Version)
			}
		}
		return no("has not started: siskin release start %s", name)
	case Progressing:
		switch v {
		case Pause, PromoteFull, Abort:
			return nil
		case Promote:
			if m.s.Gate != nil {
				return no("waits for a hook before it goes on; siskin release abort %s goes back", name)
			}
			return nil
		case Resume:
			return no("is not paused")
		case Undo:
			return no("is not promoted yet: siskin release abort %s goes back", name)
		}
		return no("runs already")
	case Paused:
		switch v {
		case Pause, Resume, Promote, PromoteFull, Abort:
			return nil
		case Undo:
			return no("is not promoted yet: siskin release abort %s goes back", name)
		}
		return no("runs already, and is paused: siskin release resume %s", name)
	case Promoting:
		switch v {
		case Promote, PromoteFull, Abort:
			return nil
		}
		return no("is being promoted: siskin release abort %s goes back", name)
	case Succeeded:
		switch {
		case v == Undo && m.o.Gone != "":
			return no("cannot be undone: %s", m.o.Gone)
		case v == Undo && m.o.Holder != "":
			return m.unready()
		case v == Undo:
			return nil
		case v == Abort:
			return no("has succeeded: siskin release undo %s goes back to the old version", name)
		}
		return no("has succeeded: change the backends of %s to release anew, or go back with siskin release undo %s", m.s.Plan.Version, name)
	case RollingBack:
		if v == Abort {
			return nil
		}
		return no("is rolling back: wait for its end, then siskin release retry %s", name)
	case RolledBack, Aborted:
		switch v {
		case Retry:
			return m.unready()
		case Abort:
			return nil
		case Start:
			return no("has run already: siskin release retry %s starts it again", name)
		}
		return no("is at stable: siskin release retry %s starts it again", name)
	}
	return no("is in no known phase")
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
