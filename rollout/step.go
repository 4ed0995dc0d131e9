package rollout

import (
	"fmt"
	"slices"
	"time"
)

// Step makes the next state of a release, and what to do for it. p is the plan
// that its document makes now; s, the state that was saved last. It is pure and
// total: the same arguments give the same result, and there are no arguments
// that it fails on.
//
// The executor looks, calls Step, carries the actions out and saves the state in
// the order of Execute; and at once again as long as something was done. Actions
// are not remembered as done: each is asked for until the kernel shows it, so it
// does not matter where the executor dies.
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
