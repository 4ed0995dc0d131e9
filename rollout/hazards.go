package rollout

import (
	"fmt"
	"time"

	"siskin.dev/siskin/analysis"
)

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
	if k.Closed > m.s.Closed {
		m.note(true, "BreakerClosed", "while nobody was there the breaker tripped, tried %s again, and found it good: "+
			"it has its weight back", m.s.Plan.Version)
	}
	m.s.Closed = k.Closed
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
