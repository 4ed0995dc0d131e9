package conduct

import (
	"time"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/rollout"
)

// A Target is what a release moves: a version of services that share one weight
// word.
type Target struct {
	Release  string
	Services []string
	Version  string
}

// Traffic is what moves connections and counts them: the kernel, as the daemon
// reaches it. Methods may be called for several releases at once.
type Traffic interface {
	// Look reads what the kernel does. run is the release's present one. It shows
	// no rollback by hand before RolledBack has told of it.
	Look(t Target, run int) rollout.Kernel
	// Arm makes the kernel watch a run under a lease (0: none), while the word is
	// zero.
	Arm(t Target, run int, w Watch, terms Terms) error
	// Resume takes up a run that the kernel knows, after a restart of the daemon.
	Resume(t Target, run int) error
	// Watch sets what the kernel watches for from now on.
	Watch(t Target, w Watch) error
	// SetWeight stores a weight if the word still has the epoch from. step is
	// what outcomes are booked in from now on, as in Watch.
	SetWeight(t Target, step int, share rollout.Share, from uint8) error
	// Rollback stores zero, and then puts the connection policy in force.
	Rollback(t Target, run int, cut rollout.Cut) error
	// Zero stores zero, and leaves open connections alone.
	Zero(t Target) error

	// Renew prolongs the lease unless it has ended. End makes the kernel watch
	// the release no more; its weight must be zero.
	Renew(t Target, lease time.Duration) error
	End(t Target) error

	// Retarget makes stable lead to the version's backends, or with back to
	// those it had before this run.
	Retarget(t Target, run int, back bool) error
	// Unfit says why the version cannot serve, Gone why the old backends cannot
	// take over again; "" where they can.
	Unfit(t Target) string
	Gone(t Target, run int) string

	// Counts reads what is known of stable and the version.
	Counts(t Target) (Counts, error)
}

// Watch is what the kernel watches for.
type Watch struct {
	Step int // of the release, from 1; 0 books nothing: a warm-up
	// SlowStable and SlowVersion are the times above which a request is slow; 0
	// where that is not watched.
	SlowStable, SlowVersion time.Duration
	Breaker                 analysis.BreakerRule // Limit 0: off
	Cut                     rollout.Cut          // what a tripped breaker does to open connections
}

// Terms are what a run has from its beginning to its end.
type Terms struct {
	Lease        time.Duration // 0: none
	Retry        time.Duration // after which a tripped breaker tries the version again; 0: never
	ByConnection bool          // what was randomised: connections, not clients
	Failures     api.Failures  // which answers are errors
}

// Counts is one reading of the kernel's counters. All of them only grow.
type Counts struct {
	At              time.Duration // CLOCK_BOOTTIME
	Stable, Version VersionCounts
	// Errors and Slow are first bad outcomes of clients, Arrivals first-seen
	// clients, by the epoch of the flow. Without weights: the reader knows them.
	Errors, Slow []EpochEvents
	Arrivals     []EpochArrivals
}

// VersionCounts is what one version did.
type VersionCounts struct {
	Connections, Errors uint64           // Errors are of connections
	Answers             analysis.Answers // and Failed are those that are errors
	Failed              uint64
	Backends            map[string]BackendCounts // by address
	Responses           analysis.Histogram
}

// BackendCounts is what one backend did.
type BackendCounts struct {
	Connections, Errors uint64
}

// EpochEvents are analysis.Events of one epoch of the weight word.
type EpochEvents struct {
	Epoch           uint8
	Step, Prev      int
	Version, Stable uint64
}

// EpochArrivals are analysis.Arrivals of one epoch.
type EpochArrivals struct {
	Epoch           uint8
	Version, Stable uint64
}
