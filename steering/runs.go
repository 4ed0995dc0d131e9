package steering

import (
	"cmp"
	"fmt"
	"slices"

	"siskin.dev/siskin/bpf"
)

// sortRuns puts runs into the order of their offsets.
func sortRuns(runs []bpf.Table) {
	slices.SortFunc(runs, func(a, b bpf.Table) int { return cmp.Compare(a.Offset, b.Offset) })
}

// findRun returns the first free run of the given length among size entries,
// of which the busy runs, in the order of their offsets, are taken.
func findRun(busy []bpf.Table, size, length uint32) (bpf.Table, error) {
	var at uint32
	for _, b := range busy {
		if b.Offset >= at && b.Offset-at >= length {
			break
		}
		at = max(at, b.Offset+b.Length)
	}
	if at > size || size-at < length {
		return bpf.Table{}, fmt.Errorf("no room for a table of %d entries among %d: %w; delete something, or start the daemon with larger maps", length, size, ErrFull)
	}
	return bpf.Table{Offset: at, Length: length}, nil
}
