package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// slotsAtOnce is how many slots one system call reads: half a megabyte.
const slotsAtOnce = 4096

// EachFlow calls each for every record of the flows map until it returns
// false. Flows that come and go meanwhile may be met or missed; none is met
// that never was.
func EachFlow(flows *ebpf.Map, each func(FlowKey, Flow) bool) error {
	n := min(slotsAtOnce, int(flows.MaxEntries()))
	keys, slots := make([]uint32, n), make([]Slot, n)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := flows.BatchLookup(&cursor, keys, slots, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read the flows: %w", err)
		}
		for i := range n {
			s := &slots[i]
			if s.Use == uint32(objSlotUseSLOT_LISTED) && !each(s.Key, s.Flow) {
				return nil
			}
		}
		if last {
			return nil
		}
	}
}
