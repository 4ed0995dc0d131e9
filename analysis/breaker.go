package analysis

import "math"

// The rule of the circuit breaker, in integers as the kernel has it.
const (
	BreakerError  = 90  // what an error adds
	BreakerRepeat = 9   // what a client's third and later error adds
	BreakerCap    = 900 // what a bucket holds
	BreakerStable = 180 // from here on stable fails too: the judge's business
	breakerRing   = 8   // how many erring clients each bucket remembers
	breakerTwice  = 2   // errors of one client that count in full
)

// BreakerRule is the part of the rule that the daemon sets.
type BreakerRule struct {
	// Success is what a success takes out of a bucket.
	Success uint64
	// Limit is the canary's level that trips.
	Limit uint64
}

// BreakerRuleFor returns the rule for stable's rate of errors, 0 to 1, and the
// number of errors in a row that trips (5 unless the release says otherwise).
//
// A success takes out 90·q/(1 − q), rounded to the nearest, so that a bucket
// fills only where more than a share q of the requests fails: a tenth, or five
// times what stable has, at most nine tenths. Above 3 % twice as many errors are
// needed. The limit is never above what a bucket holds.
func BreakerRuleFor(stableRate float64, errors int) BreakerRule {
	q := min(max(.1, 5*stableRate), .9)
	if stableRate > .03 {
		errors *= 2
	}
	return BreakerRule{
		Success: uint64(math.Round(BreakerError * q / (1 - q))),
		Limit:   min(uint64(max(errors, 1))*BreakerError, BreakerCap),
	}
}

// A Breaker is the model of the breaker in the kernel: two buckets of errors
// that successes drain, one for the canary and one for stable. It has no clock
// and no window, and it is exact: the programs in bpf/ are tested against it.
//
// What happens at an error of a server, in this order:
//
//  1. Both buckets drain: each by Success for every success of its version
//     since it was drained last, not below 0. Nothing happens at a success
//     itself. Draining at once or bit by bit comes to the same; only a change
//     of the rule in between is applied to successes that wait.
//  2. The bucket of the version that erred grows: by 90, or by 9 when the same
//     client is in that bucket's ring with two errors or more. Not above 900.
//  3. If it was the canary's error, and now the canary's bucket is at the limit
//     or above and stable's below 180, the breaker trips and stays so.
//
// The ring of a bucket has the last 8 distinct clients that erred, by when they
// came in: a client that is in it keeps its place and counts one error more; one
// that is not takes the place of the one that came in first, with one error.
// Nothing else empties it. A client is an IPv4 address or an IPv6 /64, or the
// connection where that is the affinity.
type Breaker struct {
	Rule    BreakerRule
	buckets [2]bucket // stable, canary
	tripped bool
}

type bucket struct {
	level   uint64
	waiting uint64 // successes that were not drained yet
	ring    [breakerRing]erring
	next    int // the place in the ring that is taken next
}

// erring is a client in a ring; errors is 0 where the place is free.
type erring struct {
	client uint64
	errors uint64
}

// Succeed counts successes of a version.
func (b *Breaker) Succeed(canary bool, n uint64) { b.of(canary).waiting += n }

// Err counts a failure of the server for a client, and tells whether the
// breaker is tripped now. A client's own abort is none.
func (b *Breaker) Err(canary bool, client uint64) bool {
	for i := range b.buckets {
		b.buckets[i].drain(b.Rule.Success)
	}
	b.of(canary).fill(client)
	if canary && b.buckets[1].level >= b.Rule.Limit && b.buckets[0].level < BreakerStable {
		b.tripped = true
	}
	return b.tripped
}

// Tripped tells whether the breaker has tripped. It never closes by itself.
func (b *Breaker) Tripped() bool { return b.tripped }

// Levels are the buckets as they were left by the last error.
func (b *Breaker) Levels() (canary, stable uint64) {
	return b.buckets[1].level, b.buckets[0].level
}

func (b *Breaker) of(canary bool) *bucket {
	if canary {
		return &b.buckets[1]
	}
	return &b.buckets[0]
}

// drain takes n·each away, without overflow for any n.
func (b *bucket) drain(each uint64) {
	n := min(b.waiting, BreakerCap) // each is 1 or more: more empties it anyway
	b.waiting = 0
	b.level -= min(b.level, n*each)
}

func (b *bucket) fill(client uint64) {
	amount := uint64(BreakerError)
	if b.remember(client) > breakerTwice {
		amount = BreakerRepeat
	}
	b.level = min(b.level+amount, BreakerCap)
}

// remember counts an error of a client and returns how many it has had while it
// was in the ring.
func (b *bucket) remember(client uint64) uint64 {
	for i := range b.ring {
		if e := &b.ring[i]; e.errors > 0 && e.client == client {
			e.errors++
			return e.errors
		}
	}
	b.ring[b.next] = erring{client, 1}
	b.next = (b.next + 1) % breakerRing
	return 1
}
