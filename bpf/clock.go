package bpf

import "golang.org/x/sys/unix"

// Now returns the time on the programs' clock (bpf_ktime_get_ns), which is
// CLOCK_MONOTONIC, in nanoseconds. time.Now has that clock too, but does not
// show it.
func Now() int64 {
	var ts unix.Timespec
	// It fails only for a clock that does not exist.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
