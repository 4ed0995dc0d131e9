package test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/test/bed"
)

// A canary that goes bad under traffic is off by the fifth of its errors, of
// distinct clients. The kernel does it; the daemon may stand still meanwhile.
func TestRootNginxBreaker(t *testing.T) {
	cases := []struct {
		name    string
		stands  bool // the daemon, while it happens
		goesBad func(*site)
	}{
		{"refuses", false, func(g *site) { g.canary.Stop() }},
		{"resets", false, func(g *site) { g.canary.Break() }},
		{"refuses, daemon stopped", true, func(g *site) { g.canary.Stop() }},
	}
	for _, f := range bed.Families() {
		for _, c := range cases {
			t.Run(f.String()+"/"+c.name, func(t *testing.T) { goesBad(t, f, c.stands, c.goesBad) })
		}
	}
}

// atATime is how many guests there are at a time, so that no more than these
// can be in flight.
const atATime = 8

func goesBad(t *testing.T, f bed.Family, stands bool, bad func(*site)) {
	g := openSite(t, f, bed.WebOptions{}, bed.WebOptions{})
	g.start("{weight: 25%, hold: 10m}", "lease: 1m")
	g.awaitWeight(2500)
	maps := g.pinned()
	g.open(atATime, 3, time.Millisecond)
	g.await(20, bed.By("canary"))
	if stands {
		g.s.Signal(syscall.SIGSTOP)
	}
	bad(g)
	b := g.awaitTrip(maps.breakers)
	g.await(100, bed.Anybody)
	visits := g.guests.Stop()
	if stands {
		g.s.Signal(syscall.SIGCONT)
	}
	v := g.awaitEnd("RolledBack", 10*time.Second)
	if v.Cause != "breaker tripped" {
		t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
	}
	tripped := int64(b.Monotonic)
	if n := b.Of[1].Count; n != 5 {
		t.Errorf("the breaker tripped at %d errors, want 5", n)
	}
	if late := time.Duration(maps.lastOfCanary(t) - tripped); late > time.Millisecond {
		t.Errorf("the canary was given a connection %v after its breaker had tripped", late)
	}
	fates := fatesOf(visits)
	g.spared(fates)
	inFlight := len(fates.failed) - 5
	if inFlight > atATime {
		t.Errorf("%d more failed than the 5 that tripped the breaker, and there are never more than %d", inFlight, atATime)
	}
	first := int64(0)
	for _, visit := range visits {
		switch {
		case visit.Began <= tripped:
		case visit.By != "stable" || visit.Err != nil:
			t.Errorf("after the breaker had tripped %v met %q, %v", visit.From, visit.By, visit.Err)
		case first == 0 || visit.Began < first:
			first = visit.Began
		}
	}
	t.Logf("5 errors until the breaker, %d more that were in flight; decision → first new connection, on stable: %v; last selection of the canary %v before the decision; %d guests",
		inFlight, time.Duration(first-tripped), time.Duration(tripped-maps.lastOfCanary(t)), len(visits))
	t.Logf("%s", v.Reason)
}

// Where a release says that nobody need be there, and nobody is, a version that
// its breaker took out is tried again, and has its weight back once it is good.
func TestRootNginxTriedAgain(t *testing.T) {
	t.Parallel() // it waits, most of the time
	g := openSite(t, bed.V4, bed.WebOptions{}, bed.WebOptions{})
	// By errors the daemon would judge it, as soon as it is back.
	g.start("{weight: 25%, hold: 10m}", "failSafe: false",
		"checks: [{name: p90, compare: {metric: latency, quantile: 90%, tolerance: 100%}}]")
	g.awaitWeight(2500)
	maps := g.pinned()
	g.open(atATime, 3, 10*time.Millisecond)
	g.await(20, bed.By("canary"))
	g.s.Signal(syscall.SIGSTOP)
	g.canary.Fail()
	g.awaitTrip(maps.breakers)
	g.canary.Mend()
	b := g.awaitBreaker(maps.breakers, 100*time.Second, "closed again", func(b breakerState) bool { return b.Closed == 1 })
	g.await(20, bed.By("canary"))
	visits := g.guests.Stop()
	if b.Trips != 1 || b.Tripped != 0 {
		t.Errorf("the breaker is %+v", b)
	}
	g.s.Signal(syscall.SIGCONT)
	g.spared(fatesOf(visits))
	t.Log(g.awaitEvent("BreakerClosed"))
	if v := g.status(); v.Phase != "Progressing" || v.Weight != 2500 {
		t.Errorf("the release is %s at %v: %s", v.Phase, v.Weight, v.Reason)
	}
}

// A canary that is slower by half fails nobody, and is found by the comparison
// with stable. What it waits for is long beside what a busy machine adds.
func TestRootNginxSlower(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := openSite(t, f, bed.WebOptions{Wait: 60 * time.Millisecond}, bed.WebOptions{Wait: 90 * time.Millisecond})
			g.open(40, 5, 0)
			g.await(300, bed.By("stable")) // what is slow is decided by stable's past
			g.start("{weight: 50%, hold: 10m}",
				"checks: [{name: p90, compare: {metric: latency, quantile: 90%, tolerance: 20%}}]")
			judgedWorse(t, g)
		})
	}
}

// A canary that fails one request in ten does not trip a breaker that is off;
// the comparison of errors finds it.
func TestRootNginxLossy(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := openSite(t, f, bed.WebOptions{}, bed.WebOptions{Lossy: "10%"})
			g.start("{weight: 25%, hold: 10m}", "breaker: off")
			g.awaitWeight(2500)
			g.open(atATime, 3, time.Millisecond)
			judgedWorse(t, g)
		})
	}
}

// judgedWorse waits until the judge has rejected the canary, and wants the
// reason to say by what.
func judgedWorse(t *testing.T, g *site) {
	t.Helper()
	v := g.awaitEnd("RolledBack", 20*time.Second)
	last := v.History[len(v.History)-2] // the decision; the last one is its end
	if v.Cause != "judged worse" {
		t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
	}
	for _, part := range []string{"client", "evidence", " of "} {
		if !strings.Contains(last.Reason, part) {
			t.Errorf("the reason names no %q: %s", part, last.Reason)
		}
	}
	if len(last.Counts) != 2 || last.Counts[1].Requests == 0 {
		t.Fatalf("the decision's counts are %+v", last.Counts)
	}
	onlyFrom(t, g, "stable")
	visits := g.guests.Stop()
	g.spared(fatesOf(visits))
	decided := bpf.Now() - int64(time.Since(last.Time))
	t.Logf("%d requests of the canary until it was rejected, stable had %d; last selection of the canary %v after the decision: %s", last.Counts[1].Requests,
		last.Counts[0].Requests, time.Duration(int64(g.s.Version("shop", "canary").LastSelectedNs)-decided), last.Reason)
}

// A good canary goes up all steps and becomes stable while guests come, and
// everything goes back when that is undone. Nobody notices any of it.
func TestRootNginxSucceeds(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := openSite(t, f, bed.WebOptions{}, bed.WebOptions{})
			g.open(atATime, 5, time.Millisecond)
			began := time.Now()
			g.start("{weight: 1%, hold: 300ms}, {weight: 5%, hold: 300ms}, {weight: 25%, hold: 300ms}, {weight: 50%, hold: 300ms}", "maxImpact: 1%")
			v := g.awaitEnd("Succeeded", 30*time.Second)
			took := time.Since(began)
			for _, d := range v.History {
				t.Logf("%s → %s: %s, after %+v", d.From, d.To, d.Reason, d.Counts)
			}
			onlyFrom(t, g, "canary")
			g.s.Must("release", "undo", "shop-v2")
			if v := g.awaitEnd("RolledBack", 10*time.Second); v.Cause != "undone" {
				t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
			}
			onlyFrom(t, g, "stable")
			visits := g.guests.Stop()
			if f := fatesOf(visits).failed; len(f) > 0 {
				t.Errorf("%d of %d guests failed: %v", len(f), len(visits), f[:min(3, len(f))])
			}
			t.Logf("promoted in %v, undone, and none of %d guests failed", took.Round(time.Millisecond), len(visits))
		})
	}
}

// onlyFrom wants those who come from now on to be answered by one server.
func onlyFrom(t *testing.T, g *site, name string) {
	t.Helper()
	from := bpf.Now()
	fresh := func(v bed.Visit) bool { return v.Began > from }
	g.await(40, fresh)
	for _, v := range g.guests.Visits() {
		if fresh(v) && v.By != name {
			t.Errorf("%v was answered by %q, %v; want %s", v.From, v.By, v.Err, name)
		}
	}
}
