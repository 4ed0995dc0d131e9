package analysis

import (
	"testing"

	"pgregory.net/rapid"
)

func usual() *Breaker { return &Breaker{Rule: BreakerRuleFor(0, 5)} }

func TestBreakerRuleFor(t *testing.T) {
	tests := []struct {
		rate   float64
		errors int
		want   BreakerRule
	}{
		{0, 5, BreakerRule{10, 450}},
		{.02, 5, BreakerRule{10, 450}},
		{.025, 5, BreakerRule{13, 450}}, // q = 12.5 %: 12.86
		{.03, 5, BreakerRule{16, 450}},  // q = 15 %: 15.88
		{.031, 5, BreakerRule{17, 900}}, // above 3 %
		{.1, 5, BreakerRule{90, 900}},   // q = 50 %
		{.5, 5, BreakerRule{810, 900}},  // q is 90 % at most
		{0, 3, BreakerRule{10, 270}},
		{0, 20, BreakerRule{10, 900}},
		{0, 0, BreakerRule{10, 90}},
	}
	for _, tt := range tests {
		if got := BreakerRuleFor(tt.rate, tt.errors); got != tt.want {
			t.Errorf("at %v with %d errors: %v, want %v", tt.rate, tt.errors, got, tt.want)
		}
	}
}

func TestBreakerTripsAtTheFifthError(t *testing.T) {
	b := usual()
	for client := uint64(1); client <= 4; client++ {
		if b.Err(true, client) {
			t.Fatalf("tripped at error %d", client)
		}
	}
	if !b.Err(true, 5) {
		t.Fatal("not tripped at the fifth error")
	}
}

func TestSuccessesDrainTheBreaker(t *testing.T) {
	b := usual()
	for client := uint64(1); client <= 4; client++ {
		b.Err(true, client)
	}
	b.Succeed(true, 9)
	if b.Err(true, 5) {
		t.Fatal("tripped at 360")
	}
	if s, _ := b.Levels(); s != 360 {
		t.Fatalf("S = %d, want 360", s)
	}
	if !b.Err(true, 6) {
		t.Fatal("not tripped at 450")
	}
}

func TestOneClientAloneTripsAtItsThirtySecondError(t *testing.T) {
	b := usual()
	for n := 1; n <= 31; n++ {
		if b.Err(true, 7) {
			t.Fatalf("tripped at error %d", n)
		}
	}
	if !b.Err(true, 7) {
		t.Fatal("not tripped at the 32nd")
	}
}

// From 180 on in stable's bucket it is the judge's business; just below it is not.
func TestBreakerLooksAtStable(t *testing.T) {
	for _, tt := range []struct {
		successes uint64 // of stable, after two errors: 180
		trips     bool
	}{{0, false}, {1, true}} {
		b := usual()
		b.Err(false, 100)
		b.Err(false, 101)
		b.Succeed(false, tt.successes)
		for client := uint64(1); client <= 20; client++ {
			b.Err(true, client)
		}
		if _, stable := b.Levels(); b.Tripped() != tt.trips {
			t.Errorf("T = %d: tripped %v, want %v", stable, b.Tripped(), tt.trips)
		}
	}
}

// It trips on an error of the canary only: when stable gets well, the next one
// must come first.
func TestBreakerTripsOnACanaryError(t *testing.T) {
	b := usual()
	b.Err(false, 100)
	b.Err(false, 101)
	for client := uint64(1); client <= 20; client++ {
		b.Err(true, client)
	}
	b.Succeed(false, 1000)
	if b.Err(false, 102) {
		t.Fatal("an error of stable tripped it")
	}
	if s, _ := b.Levels(); s != BreakerCap {
		t.Fatalf("S = %d, want the cap, %d", s, BreakerCap)
	}
	if !b.Err(true, 21) {
		t.Fatal("stable is well, and the canary's next error does not trip")
	}
	b.Succeed(true, 1_000_000)
	if b.Err(false, 1); !b.Tripped() {
		t.Fatal("it closed by itself")
	}
}

// The ring has the last 8 distinct clients by when they came in.
func TestBreakerRing(t *testing.T) {
	b := usual()
	quiet := func(client uint64) uint64 { // adds, far from any limit
		b.Succeed(true, 1000)
		b.Err(true, client)
		s, _ := b.Levels()
		return s
	}
	for _, want := range []uint64{90, 90, 9, 9} {
		if got := quiet(1); got != want {
			t.Fatalf("client 1 added %d, want %d", got, want)
		}
	}
	for client := uint64(2); client <= 8; client++ {
		quiet(client)
	}
	if got := quiet(1); got != 9 {
		t.Fatalf("with 8 clients in the ring the first added %d, want 9", got)
	}
	quiet(9) // takes the place of client 1, that came in first, though it erred just now
	if got := quiet(1); got != 90 {
		t.Fatalf("after it fell out of the ring it added %d, want 90", got)
	}
	quiet(3) // its second: client 2 fell out for 1
	if got := quiet(3); got != 9 {
		t.Fatalf("client 3 kept its place and added %d at its third error, want 9", got)
	}
}

func TestBreakerRingsAreApart(t *testing.T) {
	b := usual()
	for range 10 {
		b.Err(false, 1)
	}
	b.Succeed(false, 1000)
	b.Err(true, 1)
	b.Err(true, 1)
	if s, _ := b.Levels(); s != 180 {
		t.Errorf("S = %d: what a client does on stable counts on the canary", s)
	}
}

// Draining at once is draining bit by bit, and levels keep their bounds.
func TestBreakerDrainsLazily(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &Breaker{Rule: BreakerRuleFor(rapid.Float64Range(0, 1).Draw(t, "rate"), 5)}
		var s, stable uint64 // drained at each success
		seen := map[bool]int{}
		for range rapid.IntRange(1, 60).Draw(t, "outcomes") {
			canary := rapid.Bool().Draw(t, "canary")
			level := &stable
			if canary {
				level = &s
			}
			if n := rapid.Uint64Range(0, 12).Draw(t, "successes"); n > 0 {
				b.Succeed(canary, n)
				for range n {
					*level -= min(*level, b.Rule.Success)
				}
				continue
			}
			seen[canary]++
			b.Err(canary, uint64(1000+seen[canary]))
			*level = min(*level+BreakerError, BreakerCap)
			if gotS, gotT := b.Levels(); gotS != s || gotT != stable {
				t.Fatalf("levels %d, %d, want %d, %d", gotS, gotT, s, stable)
			}
		}
	})
}

func TestBreakerTakesAnyNumberOfSuccesses(t *testing.T) {
	b := usual()
	for client := uint64(1); client <= 4; client++ {
		b.Err(true, client)
	}
	b.Succeed(true, 1<<63)
	b.Err(true, 5)
	if s, _ := b.Levels(); s != 90 {
		t.Errorf("S = %d after 2^63 successes and an error, want 90", s)
	}
}
