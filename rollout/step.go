package rollout

import (
	"fmt"
	"slices"
	"time"

	"siskin.dev/siskin/analysis"
)

// Step makes the next state of a release, and what to do for it. p is the plan
// that its document makes now; s, the state that was saved last. It is pure and
// total: the same arguments give the same result, and there are no arguments
// that it fails on.
//
// The executor looks, calls Step, carries the actions out and saves the state in
// the order of Execute; and at once again as long as something was done. Actions are not remembered as done: each is asked for until the
// kernel shows it, so it does not matter where the executor dies.
//
// A rollback is asked for by the very Step that decides it, so traffic moves
// before anything is written. A way up is asked for by the next Step, whose
// state says so already: the kernel never has more than what was saved. That a
// word was taken back in between shows by its epoch, and such a release is not
// raised again.
func Step(p Plan, s State, o Observations, now Time) (State, []Action) {
	m := &machine{plan: p, s: s.clone(), o: o, now: now, passed: now.since(s.Last)}
	m.settleHooks()
	m.edit()
	m.command()
	m.autoStart()
	m.hazards()
	m.progress()
	m.reconcile()
	m.callHooks()
	if o.Deleted && !m.s.Phase.Active() && len(m.s.Outbox) == 0 && !m.o.Kernel.Held {
		m.do(Forget{})
	}
	m.s.Last = now
	return m.s, m.actions
}

// machine is one Step under way.
type machine struct {
	plan    Plan
	s       State
	o       Observations
	now     Time
	passed  time.Duration // since the last look
	by      string        // whose command is carried out
	fresh   bool          // decided by this Step: to be saved before traffic goes up
	actions []Action
}

func (m *machine) do(a Action) { m.actions = append(m.actions, a) }

func (m *machine) note(warn bool, reason, format string, args ...any) {
	m.do(Note{Warn: warn, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// enter changes the phase and books why. means are the actions that follow.
func (m *machine) enter(to Phase, reason string, means ...Action) {
	d := Decision{Time: m.now.Wall, Run: m.s.Run, Step: m.s.Step, From: m.s.Phase, To: to, Reason: reason, By: orElse(m.by, Daemon)}
	d.judged(m.o.Judgment)
	for _, a := range means {
		d.Actions = append(d.Actions, a.String())
	}
	m.s.Phase, m.s.Reason, m.s.Waiting, m.s.Lost = to, reason, nil, false
	d.Weight = m.s.Weight()
	if to == RollingBack || to == RolledBack || to == Aborted {
		d.Cause = m.s.Cause
	}
	m.do(Book{d})
}

// edit takes over what may change while a release runs, and says what waits.
func (m *machine) edit() {
	seen := m.s.Target
	m.s.Target = m.plan.Target
	switch {
	case m.s.Phase == Pending:
		m.s.Plan = m.plan.clone()
	case m.s.Phase.Active() && !m.o.Deleted:
		var waits []string
		m.s.Plan, waits = m.s.Plan.edited(m.plan)
		if len(waits) > 0 && !slices.Equal(waits, m.s.Waits) {
			m.note(true, "EditWaits", "changes of %s take effect when it is retried; this run goes on as it began", list(waits))
		}
		m.s.Waits = waits
	case m.s.Phase.Final() && seen != "" && m.plan.Target != seen:
		m.enter(Pending, fmt.Sprintf("the backends of %s changed", m.plan.Version))
		m.s.Plan, m.s.Waits, m.s.Cause, m.s.Step = m.plan.clone(), nil, "", 0
		m.note(false, "ReleaseReady", "the backends of %s changed: %s can start again", m.plan.Version, m.plan.Release)
	}
}

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

// back starts the way to stable. Nothing is asked, and nothing is waited for.
func (m *machine) back(cause Cause, reason string) {
	m.s.Gate, m.s.Cause, m.s.End = nil, cause, RolledBack
	if cause == ByAbort {
		m.s.End = Aborted
	}
	m.fresh = true
	m.enter(RollingBack, reason, Rollback{Cut: m.s.Plan.Cut, Cause: cause})
	m.note(true, "RollingBack", "%s: %s", cause, reason)
}

// hazards looks for what ends a run.
func (m *machine) hazards() {
	if m.s.Phase != Progressing && m.s.Phase != Paused && m.s.Phase != Promoting {
		return
	}
	m.latches()
	if m.s.Phase == RollingBack {
		return
	}
	j := m.o.Judgment
	switch {
	case j != nil && j.Run == m.s.Run && j.Verdict == analysis.Fail:
		m.back(ByJudge, j.Reason)
	case m.o.Unfit != "":
		m.back(Unfit, m.o.Unfit)
	case m.o.Deleted:
		m.back(ByDelete, "the release was deleted while it ran")
	case m.s.Phase == Progressing && m.s.Plan.Deadline > 0 && m.s.Age >= m.s.Plan.Deadline:
		m.back(ByDeadline, fmt.Sprintf("it has run for %s, and its deadline is %s", m.s.Age.Round(time.Second), m.s.Plan.Deadline))
	}
}

// latches looks for what the kernel, or another hand, has done already.
func (m *machine) latches() {
	k := m.o.Kernel
	if !k.Known {
		return
	}
	if m.now.BootID != m.s.Last.BootID && k.Share == 0 && k.Latched == Unlatched && (m.s.Base.Share == 0 || !m.s.Armed) {
		// The host restarted before anything went up.
		m.s.Armed, m.s.Base, m.fresh = false, Word{k.Share, k.Epoch}, true
		return
	}
	if !m.s.Armed {
		m.unarmed()
		return
	}
	if k.Retargeted && m.s.Phase != Promoting { // decided and done, but never saved: the disk was full
		m.s.Gate, m.s.Promoted = nil, true
		m.enter(Promoting, "found half done")
	}
	m.s.Turned = k.Retargeted && (m.s.Turned || k.Settled)
	switch {
	case k.Latched == BreakerTripped:
		m.back(ByBreaker, orElse(k.Evidence, "the kernel took the version out"))
	case m.s.Turned:
		// Zero is where it goes, whoever stored it.
	case k.Latched == LeaseEnded, k.Held && m.s.Plan.FailSafe && !k.Leased:
		m.back(ByLease, m.leaseEnded())
	case k.Share == 0 && (m.s.Base.Share > 0 || k.Epoch != m.s.Base.Epoch):
		m.back(FoundAtStable, "it was taken back by hand, by a restart of the host, or by a daemon that ended before it wrote down why")
	case !k.Held:
		m.back(FoundAtStable, "the kernel watches it no more: the host restarted, or siskin was uninstalled meanwhile")
	}
}

// unarmed looks for a word that went on from where it was at the start: then
// this run has done more than what was saved, and may have been taken back.
func (m *machine) unarmed() {
	k, base := m.o.Kernel, m.s.Base
	switch {
	case k.Share == base.Share && k.Epoch == base.Epoch:
	case base.Share > 0 && k.Share == 0 && k.Epoch == base.Epoch+1 && k.Latched == Unlatched:
		m.s.Base, m.fresh = Word{0, k.Epoch}, true // what was set by hand is zero now
	case k.Latched == BreakerTripped:
		m.back(ByBreaker, orElse(k.Evidence, "the kernel took the version out"))
	case k.Latched == LeaseEnded:
		m.back(ByLease, m.leaseEnded())
	default:
		m.back(FoundAtStable, "the kernel was found elsewhere than where the release began, and why was not written down")
	}
}

func (m *machine) leaseEnded() string {
	return fmt.Sprintf("nobody renewed the lease of %s in time, so the kernel went back to stable", m.s.Plan.Lease)
}

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

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// list writes "a, b and c".
func list(parts []string) string {
	switch n := len(parts); n {
	case 0:
		return ""
	case 1:
		return parts[0]
	default:
		out := parts[0]
		for _, p := range parts[1 : n-1] {
			out += ", " + p
		}
		return out + " and " + parts[n-1]
	}
}
