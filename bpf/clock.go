package bpf

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time on the programs' clock (bpf_ktime_get_ns), which is
// CLOCK_MONOTONIC, in nanoseconds. time.Now has that clock too, but does not
// show it.
func Now() int64 {
	var ts unix.Timespec
	// It fails only for a clock that does not exist.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// BootNow returns the time on the clock of leases (bpf_ktime_get_boot_ns), which
// is CLOCK_BOOTTIME, in nanoseconds: it goes on while the machine is suspended.
func BootNow() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}

// Tick returns how long a tick of the programs' coarse clock is: a jiffy, which
// is what the coarse clocks of user space step by.
func Tick() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0, fmt.Errorf("ask for the length of a tick: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
