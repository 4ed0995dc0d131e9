package rollout

import (
	"fmt"
	"slices"
	"time"

	"siskin.dev/siskin/analysis"
)

// progress counts time and moves on.
func (m *machine) progress() {
	if m.fresh {
		return
	}
	if m.s.Phase == Progressing || m.s.Phase == Promoting {
		m.s.Age += m.passed
	}
	switch m.s.Phase {
	case Progressing, Paused:
		m.confirm()
		if m.s.Phase == Progressing && m.s.Gate != nil {
			m.askGate()
		} else if m.s.Phase == Progressing {
			m.hold()
		}
	case Promoting:
		m.confirm()
		if k := m.o.Kernel; k.Known && m.s.Turned && k.Share == 0 {
			m.enter(Succeeded, fmt.Sprintf("%s is stable", m.s.Plan.Version))
			m.note(false, "ReleaseSucceeded", "%s is stable", m.s.Plan.Version)
			m.tell(AtPromote)
		}
	case RollingBack:
		if m.atStable() {
			m.returned()
		}
	}
}

// confirm takes note of what the kernel shows of the present step.
func (m *machine) confirm() {
	k := m.o.Kernel
	if !k.Known {
		return
	}
	if !m.s.Armed {
		if k.Armed == m.s.Run && k.Share == 0 && m.s.Step >= 0 {
			m.s.Armed, m.s.Base, m.fresh = true, Word{0, k.Epoch}, true
		}
		return
	}
	if k.Latched != Unlatched || k.Share != m.s.Weight() || m.s.Plan.FailSafe && !k.Leased {
		return
	}
	m.s.Base = Word{k.Share, k.Epoch}
	if m.s.Confirmed {
		return
	}
	m.s.Confirmed = true
	m.passed = 0 // the hold begins now
	switch {
	case m.s.Phase == Promoting:
	case m.s.Step == 0:
		m.tell(AtStart)
	default:
		m.tell(AtStep)
	}
}

// hold waits for the end of the step.
func (m *machine) hold() {
	switch {
	case !m.o.Kernel.Known:
		m.s.Waiting = []string{"the kernel's maps, which cannot be read"}
		return
	case !m.s.Confirmed || m.s.Step >= len(m.s.Plan.Steps):
		return
	}
	step := m.s.Plan.Steps[m.s.Step]
	left := step.For - m.s.Held
	m.s.Held = min(m.s.Held+m.passed, step.For)
	m.s.Waiting = nil
	if m.s.Held < step.For {
		m.s.Waiting = []string{fmt.Sprintf("%s of the hold", (step.For - m.s.Held + time.Second - 1).Truncate(time.Second))}
		return
	}
	if step.Pause {
		m.s.ByStep = true
		m.enter(Paused, fmt.Sprintf("step %d waits for a person: siskin release promote %s", m.s.Step+1, m.s.Plan.Release))
		m.note(false, "ReleasePaused", "step %d waits for a person", m.s.Step+1)
		m.tell(AtPause)
		return
	}
	j := m.o.Judgment
	if j != nil && j.Run == m.s.Run && j.Step == m.s.Step && j.Verdict == analysis.Pass && len(j.Waiting) == 0 {
		m.advance()
		return
	}
	m.s.Over += max(0, m.passed-max(0, left))
	m.s.Waiting = []string{"the judge has not looked yet"}
	if j != nil {
		m.s.Waiting = slices.Clone(j.Waiting)
		if len(m.s.Waiting) == 0 {
			m.s.Waiting = []string{j.Verdict.String() + ": " + j.Reason}
		}
	}
	if after := m.s.Plan.AbortAfter; after > 0 && m.s.Over >= after {
		m.back(Undecided, fmt.Sprintf("for %s beyond the hold: %s", after, list(m.s.Waiting)))
	}
}

// atStable tells whether nothing is left to be taken back.
func (m *machine) atStable() bool {
	k := m.o.Kernel
	return k.Known && k.Share == 0 && !k.Retargeted && (k.Settled || !m.s.Promoted) && m.cut()
}

// cut tells whether nothing is left to be done to open connections.
func (m *machine) cut() bool { return m.o.Kernel.Cut || m.s.Plan.Cut.orKeep() == "keep" }

// returned ends the way back.
func (m *machine) returned() {
	m.enter(m.s.End, fmt.Sprintf("%s: %s", m.s.Cause, m.s.Reason))
	m.note(true, m.s.Phase.String(), "everything is at stable; %s", m.s.Reason)
	switch m.s.Cause {
	case ByAbort:
		m.tell(AtAbort)
	case ByUndo:
		m.tell(AtUndo)
	default:
		m.tell(AtRollback)
	}
}
