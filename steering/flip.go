package steering

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"siskin.dev/siskin/bpf"
)

func (u *update) openGate(side bpf.GateSide, key bpf.Tuple) error {
	word, bit := bpf.GateBit(side, key, u.maps.Limits.Gate)
	return put(u.maps.Gate, u.state.gate, "the gate", word, u.state.gate[word]|bit)
}

func compareTuples(a, b bpf.Tuple) int {
	return cmp.Or(a.AddrPort().Compare(b.AddrPort()), cmp.Compare(a.Proto, b.Proto))
}

// flip leads the service's frontends to their new tables. Each frontend
// changes with one write, and all that it leads to was written before.
func (u *update) flip(plan *servicePlan) error {
	u.closeVersions(plan)
	tables, err := u.tables(plan)
	if errors.Is(err, ErrFull) {
		// What was flipped away from a moment ago makes room.
		if err := u.grace(); err != nil {
			return err
		}
		tables, err = u.tables(plan)
	}
	if err != nil {
		return err
	}
	for _, key := range slices.SortedFunc(maps.Keys(plan.frontends), compareTuples) {
		f := plan.frontends[key]
		name := frontendOf(key)
		for slot := range f.Tables {
			f.Tables[slot] = tables[tableKey{uint8(slot), FamilyOf(name.Addr.Addr())}]
		}
		if err := put(u.maps.VIPs, u.state.vips, "the address of frontend "+name.String(), f.Id, key); err != nil {
			return err
		}
		if err := u.openGate(bpf.GateFrontends, key); err != nil {
			return err
		}
		if old, ok := u.state.frontends[key]; ok && old != f {
			u.ungraced = true
		}
		if err := put(u.maps.Frontends, u.state.frontends, "frontend "+name.String(), key, f); err != nil {
			return err
		}
	}
	u.openRoute(plan)
	return nil
}

// tables returns the runs of the service's tables: those that are there
// already where the content is the same, else new ones in free space.
func (u *update) tables(plan *servicePlan) (map[tableKey]bpf.Table, error) {
	out := map[tableKey]bpf.Table{}
	families := familiesOf(plan.desired.Frontends)
	for _, key := range slices.SortedFunc(maps.Keys(plan.members), func(a, b tableKey) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.family, b.family))
	}) {
		if !families[key.family] {
			continue
		}
		ids, err := MaglevTable(plan.members[key], u.present(plan, key))
		if err != nil {
			return nil, err
		}
		run, ok := u.existing(plan, key, ids)
		if !ok {
			if run, err = u.fill(ids); err != nil {
				return nil, err
			}
		}
		out[key] = run
	}
	return out, nil
}

// present returns the length of the version's table as it is now; 0: it has
// none.
func (u *update) present(plan *servicePlan, key tableKey) uint32 {
	var length uint32
	for tuple := range plan.frontends {
		if FamilyOf(tuple.Addr.Netip()) == key.family {
			length = max(length, u.state.frontends[tuple].Tables[key.slot].Length)
		}
	}
	return length
}

// existing returns the run with this content among those of the service.
func (u *update) existing(plan *servicePlan, key tableKey, ids []uint32) (bpf.Table, bool) {
	for tuple := range plan.frontends {
		f, ok := u.state.frontends[tuple]
		if !ok || FamilyOf(tuple.Addr.Netip()) != key.family {
			continue
		}
		for _, t := range f.Tables {
			if t.Length == uint32(len(ids)) && slices.Equal(u.state.runs[t], ids) {
				return t, true
			}
		}
	}
	return bpf.Table{}, false
}

// fill writes a table to a run that no program reads.
func (u *update) fill(ids []uint32) (bpf.Table, error) {
	if len(u.busy) != len(u.state.runs) { // at first, and after runs were freed
		u.busy = slices.Collect(maps.Keys(u.state.runs))
		sortRuns(u.busy)
	}
	run, err := findRun(u.busy, u.maps.Limits.Maglev, uint32(len(ids)))
	if err != nil {
		return run, err
	}
	if err := u.maps.Maglev.Fill(run.Offset, ids); err != nil {
		return run, fmt.Errorf("fill a table: %w", err)
	}
	u.state.runs[run] = ids
	at, _ := slices.BinarySearchFunc(u.busy, run.Offset, func(t bpf.Table, offset uint32) int { return cmp.Compare(t.Offset, offset) })
	u.busy = slices.Insert(u.busy, at, run)
	return run, nil
}
