package rollout

import "fmt"

func (m *machine) autoStart() {
	if m.s.Phase != Pending || !m.plan.AutoStart {
		return
	}
	if m.s.Lost {
		m.s.Reason = "its history was lost: start it with siskin release start " + m.plan.Release
		return
	}
	if err := m.unready(); err != nil {
		m.s.Waiting = []string{err.Error()}
		return
	}
	m.begin("started by itself: autoStart")
}

// unready says why no run can begin.
func (m *machine) unready() error {
	switch {
	case m.o.Holder != "":
		return fmt.Errorf("service %s belongs to release %s while it runs: wait for it, or abort it with siskin release abort %s", m.o.Service, m.o.Holder, m.o.Holder)
	case m.o.Deleted:
		return fmt.Errorf("its document was deleted: apply it again")
	case m.o.Unfit != "":
		return fmt.Errorf("version %s cannot serve: %s", m.plan.Version, m.o.Unfit)
	case !m.o.Kernel.Known:
		return fmt.Errorf("the kernel's maps cannot be read yet: try again")
	case m.plan.weight(0) == 0:
		return fmt.Errorf("its first step has no weight: give it one")
	}
	return nil
}

// begin starts a new run by the plan as it is now.
func (m *machine) begin(reason string) {
	m.s = State{Phase: m.s.Phase, Run: max(m.s.Run, m.o.Kernel.LastRun) + 1, Step: -1, Plan: m.plan.clone(), Target: m.plan.Target,
		Base: Word{m.o.Kernel.Share, m.o.Kernel.Epoch}, Outbox: m.s.Outbox, Last: m.now}
	m.enter(Progressing, reason)
	m.note(false, "ReleaseStarted", "%s", reason)
	m.raise(0, AtStart)
}

// advance goes to the next step, or on to the promotion.
func (m *machine) advance() {
	switch next := m.s.Step + 1; {
	case next == 0: // paused before the hooks let it start
		m.raise(0, AtStart)
	case next < len(m.s.Plan.Steps):
		m.raise(next, AtStep)
	default:
		m.raise(next, AtPromote)
	}
}

// raise goes up as soon as the hooks agree.
func (m *machine) raise(next int, at Moment) {
	m.s.Tries++
	m.s.Gate = &Gate{Moment: at, Next: next, Try: m.s.Tries}
	if m.s.Phase == Paused {
		m.enter(Progressing, "goes on")
	}
	if len(m.gateHooks()) == 0 {
		m.pass()
	}
}

// pass goes through the gate.
func (m *machine) pass() {
	g := *m.s.Gate
	m.s.Gate, m.s.Confirmed, m.s.Held, m.s.Over, m.fresh = nil, false, 0, 0, true
	if g.Moment == AtPromote {
		m.s.Step, m.s.Promoted = len(m.s.Plan.Steps)-1, true
		m.enter(Promoting, fmt.Sprintf("%s becomes stable", m.s.Plan.Version), SetWeight{Share: Whole}, RetargetStable{}, Zero{})
		m.note(false, "Promoting", "%s becomes stable", m.s.Plan.Version)
		return
	}
	m.s.Step = g.Next
	w := m.s.Plan.weight(g.Next)
	m.enter(Progressing, fmt.Sprintf("step %d of %d: %s", g.Next+1, len(m.s.Plan.Steps), w), SetWeight{Share: w})
	m.note(false, "StepEntered", "step %d of %d, %s", g.Next+1, len(m.s.Plan.Steps), w)
}
