package bpf

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// limits are the programs' constants that are written in milliseconds and read
// in ticks.
var limits = []string{
	"idle_syn", "idle_pressed", "idle_crowded", "idle_established", "idle_fin", "idle_closed",
	"idle_closed_snat", "idle_udp", "idle_udp_answered", "slot_grace", "kept_age",
	"fragment_age", "hop_age", "port_pause",
}

// Spec returns the compiled programs and maps, not loaded, with their limits
// in this kernel's ticks.
func Spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadObj()
	if err != nil {
		return nil, err
	}
	return spec, inTicks(spec)
}

// XDPSpec returns the programs for XDP, not loaded. Its maps are those of Spec:
// load it with their like from there as replacements, all but the compiler's
// own (.rodata), or it would work on maps that nobody fills.
func XDPSpec() (*ebpf.CollectionSpec, error) {
	spec, err := loadXdp()
	if err != nil {
		return nil, err
	}
	return spec, inTicks(spec)
}

// inTicks converts the limits of a spec.
func inTicks(spec *ebpf.CollectionSpec) error {
	tick, err := Tick()
	if err != nil {
		return err
	}
	for _, name := range limits {
		v, ok := spec.Variables[name]
		if !ok {
			continue // the compiler found no use for it
		}
		var ms uint32
		if err := v.Get(&ms); err != nil {
			return fmt.Errorf("read constant %s: %w", name, err)
		}
		ticks := uint32(time.Duration(ms) * time.Millisecond / tick)
		if err := v.Set(max(1, ticks)); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return nil
}
