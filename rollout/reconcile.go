package rollout

// reconcile asks for what lies between the kernel and the state.
func (m *machine) reconcile() {
	switch m.s.Phase {
	case Progressing, Paused:
		m.climb()
	case Promoting:
		if m.o.Kernel.Known && m.o.Kernel.Retargeted {
			m.turned()
			return
		}
		m.climb()
		if m.s.Confirmed && m.o.Kernel.Share == Whole && m.o.Kernel.Latched == Unlatched {
			m.do(RetargetStable{})
		}
	case RollingBack:
		m.descend()
	case Pending, Succeeded, RolledBack, Aborted:
		m.clear()
	}
}

// clear ends what only a release that runs may have. A weight is there only if
// its state was lost, since no disk would take it.
func (m *machine) clear() {
	k := m.o.Kernel
	if !k.Known || !k.Held {
		return
	}
	if k.Share != 0 {
		m.do(Rollback{Cut: m.s.Plan.Cut, Cause: LeftOver, Reason: "a weight of a release was found, and no release that runs"})
	}
	m.do(End{})
}

// climb brings the kernel to the weight of the present step.
func (m *machine) climb() {
	k := m.o.Kernel
	switch {
	case !k.Known || m.s.Step < 0:
		return
	case !m.s.Armed:
		if !m.fresh {
			m.arm()
		}
		return
	case k.Latched != Unlatched:
		return
	}
	want := m.s.Weight()
	if m.fresh || m.s.Phase == Paused {
		want = min(want, m.s.Base.Share)
	}
	if k.Share > m.s.Weight() || k.Share < want {
		m.do(SetWeight{Step: m.s.Step, Share: want, From: k.Epoch})
	}
}

// arm makes the kernel ready for this run, from zero.
func (m *machine) arm() {
	k := m.o.Kernel
	switch {
	case k.Share != 0: // set by hand before the start
		m.do(Zero{})
	case k.Held && k.Armed != m.s.Run: // still for the run before
		m.do(End{})
	case !k.Held:
		lease := m.s.Plan.Lease
		if !m.s.Plan.FailSafe {
			lease = 0
		}
		m.do(Arm{Run: m.s.Run, Lease: lease})
	}
}

// turned: once stable leads to the version's backends, the word means nothing
// any more.
func (m *machine) turned() {
	if m.s.Turned && m.o.Kernel.Share != 0 {
		m.do(Zero{})
	}
}

// descend brings everything to stable, the word first: whatever of a promotion
// was done, zero is never worse than what is there.
func (m *machine) descend() {
	k := m.o.Kernel
	if m.fresh || !k.Known || k.Share != 0 || !m.cut() {
		m.do(Rollback{Cut: m.s.Plan.Cut, Cause: m.s.Cause, Reason: m.s.Reason})
	}
	if k.Known && k.Retargeted {
		m.do(RetargetStable{Back: true})
	}
}
