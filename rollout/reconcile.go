package rollout

// reconcile asks for what lies between the kernel and the state.
func (m *machine) reconcile() {
	switch m.s.Phase {
	case Progressing, Paused:
		m.climb()
	case Promoting:
		if m.o.Kernel.Known && m.o.Kernel.Retargeted {
			m.finishPromotion()
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

// clear takes back what only a release that runs may have: its state was lost,
// since no disk would take it.
func (m *machine) clear() {
	k := m.o.Kernel
	if !k.Known || !k.Leased {
		return
	}
	if k.Share != 0 {
		m.do(Rollback{Cut: m.s.Plan.Cut, Cause: LeftOver, Reason: "a weight under a lease was found, and no release that runs"})
	}
	m.do(DropLease{})
}

// climb brings the kernel to the weight of the present step.
func (m *machine) climb() {
	k := m.o.Kernel
	if !k.Known || m.s.Step < 0 {
		return
	}
	if !m.s.Armed {
		if m.fresh {
			return
		}
		if k.Share != 0 { // set by hand before the start
			m.do(Zero{})
		} else {
			m.do(Arm{Run: m.s.Run})
		}
		return
	}
	want := m.s.Weight()
	if m.fresh || m.s.Phase == Paused {
		want = min(want, m.s.Base.Share)
	}
	switch {
	case k.Latched == LeaseEnded && !m.s.Plan.FailSafe:
		m.do(Unlatch{Share: want})
		return
	case k.Latched != Unlatched:
		return
	}
	if m.s.Plan.FailSafe && !k.Leased {
		m.do(GrantLease{Lease: m.s.Plan.Lease})
	}
	if k.Share > m.s.Weight() || k.Share < want {
		m.do(SetWeight{Share: want, From: k.Epoch})
	}
}

// finishPromotion: stable leads to the version's backends, so that the word
// and the lease mean nothing any more.
func (m *machine) finishPromotion() {
	k := m.o.Kernel
	if k.Share != 0 {
		m.do(Zero{})
	}
	if k.Leased {
		m.do(DropLease{})
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
	if k.Known && k.Leased {
		m.do(DropLease{})
	}
}
