package rollout

import (
	"time"

	"siskin.dev/siskin/analysis"
)

// Time is a moment as the executor reads it.
type Time struct {
	// BootID changes when the machine restarts (/proc/sys/kernel/random/boot_id).
	BootID string `json:"bootID,omitempty"`
	// Boot is CLOCK_BOOTTIME. All that is waited for is counted in it; the time
	// of day may jump.
	Boot time.Duration `json:"boot"`
	// Wall is only written down.
	Wall time.Time `json:"wall"`
}

// maxGap bounds how much of the time between two looks counts as held: while
// the machine slept or the daemon hung, nobody watched. A planned restart fits.
const maxGap = time.Minute

// since is how much time counts between two looks.
func (t Time) since(last Time) time.Duration {
	if t.BootID != last.BootID {
		return 0
	}
	return min(max(0, t.Boot-last.Boot), maxGap)
}

// Observations are what is seen of the world in one look.
type Observations struct {
	Kernel   Kernel
	Judgment *Judgment // nil: not judged in this look
	Commands []Command
	Hooks    map[string]HookResult // by the key of their RunHook; those still running are not there
	Deleted  bool                  // the document is gone
	// Holder is another release that holds Service, one of this release's.
	Holder, Service string
	// Unfit says why the version cannot serve: no healthy backend. "": it can.
	Unfit string
	// Gone says why the old backends cannot take the traffic back after a
	// promotion. "": they stand and are healthy.
	Gone string
}

// Kernel is what the kernel does, as read from its maps: not what it was told.
type Kernel struct {
	Known bool // false: could not be read; nothing goes up until it can
	// Share is the version's weight in the stored word, and Epoch the word's.
	Share Share
	Epoch uint8
	// Latched: the kernel itself took the version out.
	Latched  Latch
	Evidence string // of the breaker, for a person
	// Closed is how often the breaker has tripped and closed again by itself
	// since the run began.
	Closed int
	// Held: the kernel watches the release, and Armed is the run that it does so
	// for; 0 when that is not known.
	Held  bool
	Armed int
	// Leased: a lease is there and has not ended.
	Leased bool
	// LeaseUntil is when it ends, on CLOCK_BOOTTIME; only for people.
	LeaseUntil time.Duration
	// Cut: this run's Rollback has dealt with the version's connections. It need
	// not be remembered over a restart.
	Cut bool
	// Retargeted: this run's promotion is on record, so that stable leads to the
	// backends of the version, or will. By the record and not by comparing
	// addresses.
	Retargeted bool
	// LastRun is the highest run that a promotion is on record of: the state may
	// have been lost, and its runs counted anew.
	LastRun int
	// Settled: the maps follow the record.
	Settled bool
}

// A Latch says what in the kernel took a version out.
type Latch int

// Latches.
const (
	Unlatched Latch = iota
	LeaseEnded
	BreakerTripped
)

// A Judgment is what the judge makes of the version at one look.
type Judgment struct {
	Run, Step int // what was judged; a pass of another step is not heeded
	Verdict   analysis.Verdict
	Reason    string
	Waiting   []string // what keeps the step from ending
	Findings  []analysis.Finding
	Evidence  float64 // E_release
	MayHide   float64
	Counts    []Count
}

// A Count is what a version has answered.
type Count struct {
	Version  string `json:"version"`
	Requests uint64 `json:"requests"`
	Errors   uint64 `json:"errors"`
	Clients  uint64 `json:"clients,omitempty"` // that erred
}

// A Command is what a person asks for. ID names it in the Answer.
type Command struct {
	ID   string
	Verb Verb
	By   string // who, for the history
	Why  string // of a TakeBack: what was commanded, for a person
}

// A HookResult is how a hook ended.
type HookResult struct {
	OK     bool
	Reason string // of a refusal or a failure
}
