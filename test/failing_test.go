package test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// A canary that answers every request by 500, quickly and on connections that
// are in order, is off by the fifth of distinct clients. Who is on it is reset,
// comes again and meets stable, and who was on stable notices nothing.
func TestRootFailingBreaker(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) { allFail(t, f) })
	}
}

func allFail(t *testing.T, f bed.Family) {
	const regulars = 40
	g := openSite(t, f, bed.WebOptions{}, bed.WebOptions{})
	g.start("{weight: 50%, hold: 10m}", "lease: 1m", "breaker: {errors: 5}", "rollback: {connections: reset}")
	g.awaitWeight(5000)
	maps := g.pinned()
	g.guests = g.r.Client.Regulars(regulars, 5*time.Millisecond, g.frontend)
	g.s.Await("both versions have regular clients", func() bool { return g.guests.Answers() > 10*regulars })
	g.canary.Fail()
	b := g.awaitTrip(maps.breakers)
	tripped := int64(b.Monotonic)
	v := g.awaitEnd("RolledBack", 10*time.Second)
	g.s.Await("the canary has no connections any more", func() bool { return g.s.Version("shop", "canary").Traffic.Active == 0 })
	visits := g.guests.Stop()

	if n := b.Of[1].Count; n != 5 {
		t.Errorf("the breaker tripped at %d errors, want 5", n)
	}
	if v.Cause != "breaker tripped" {
		t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
	}
	if late := time.Duration(maps.lastOfCanary(t) - tripped); late > time.Millisecond {
		t.Errorf("the canary was given a connection %v after its breaker had tripped", late)
	}
	failures, onCanary := 0, 0
	for _, visit := range visits {
		switch {
		case visit.By == "stable" && (visit.Err != nil || visit.Failures > 0):
			t.Errorf("%v of stable met %d failures, %v", visit.From, visit.Failures, visit.Err)
		case visit.Began > tripped && visit.By != "stable":
			t.Errorf("%v came after the breaker had tripped and met %q, %v", visit.From, visit.By, visit.Err)
		case visit.By == "canary":
			onCanary++
			failures += visit.Failures
			if !errors.Is(visit.Err, syscall.ECONNRESET) {
				t.Errorf("%v was on the canary and met %v, want a reset", visit.From, visit.Err)
			}
		}
	}
	// Of each client's last answer nobody knows whether it or the reset won.
	counted := countedOf(g.s, "shop")["5xx"]
	if counted < 5 || counted < failures || counted > failures+onCanary {
		t.Errorf("%d answers of 5xx were counted, clients had %d", counted, failures)
	}
	t.Logf("5 errors until the breaker, %d more in flight, of which clients had %d in all; %d of %d clients were on the canary and reset; %s",
		counted-5, failures, onCanary, len(visits), v.Reason)
}

// A canary that fails one request in a hundred, where stable fails one in a
// thousand, is found by the comparison, which says of how many.
func TestRootFailingCompared(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := openSite(t, f, bed.WebOptions{Fails: "0.1%"}, bed.WebOptions{Fails: "1%"})
			g.start("{weight: 50%, hold: 10m}", "breaker: off", "checks: [{name: worse, compare: {metric: errorRate}}]")
			g.awaitWeight(5000)
			g.open(atATime, 10, 0)
			v := g.awaitEnd("RolledBack", 30*time.Second)
			last := v.History[len(v.History)-2] // the decision; the last one is its end
			if v.Cause != "judged worse" {
				t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
			}
			for _, part := range []string{"canary requests failed", "clients", "of stable", "evidence"} {
				if !strings.Contains(last.Reason, part) {
					t.Errorf("the reason names no %q: %s", part, last.Reason)
				}
			}
			if len(last.Counts) != 2 || last.Counts[1].Errors == 0 || last.Counts[1].Requests < 20*last.Counts[1].Errors {
				t.Fatalf("the decision's counts are %+v", last.Counts)
			}
			g.guests.Stop()
			t.Logf("%s", last.Reason)
		})
	}
}
