package test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// A site is a service of two real web servers, and a release of it.
type site struct {
	*staged
	stable, canary *bed.Web
	guests         *bed.Guests
}

// openSite brings up a service "shop" with nginx as stable and as canary.
func openSite(t *testing.T, f bed.Family, stable, canary bed.WebOptions) *site {
	t.Helper()
	r := bed.NewRouted(bed.New(t))
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(f.At(bed.Nearby, 2), port) }
	g := &site{staged: &staged{t: t, r: r, family: f, frontend: netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)}}
	g.stable = r.Near.ServeWeb(at(8081), "stable", stable)
	g.canary = r.Near.ServeWeb(at(8082), "canary", canary)
	g.s = steer(t, r.Bed, r.Host, []string{"up0"})
	g.s.Apply(bed.Service{
		Name: "shop", Proto: "tcp", Frontends: []netip.AddrPort{g.frontend},
		Stable: []netip.AddrPort{g.stable.Addr}, Canary: []netip.AddrPort{g.canary.Addr},
	})
	return g
}

// open lets guests come, some at a time.
func (g *site) open(atATime, requests int, think time.Duration) {
	g.t.Helper()
	g.guests = g.r.Client.Guests(atATime, requests, think, g.frontend)
	g.await(20, bed.By("stable"))
}

func (g *site) await(more int, kind func(bed.Visit) bool) {
	g.t.Helper()
	if err := g.guests.Await(more, kind); err != nil {
		g.t.Fatalf("%v; the release: %+v", err, g.status())
	}
}

// start applies a release and starts it.
func (g *site) start(steps string, more ...string) {
	g.t.Helper()
	g.release(steps, more...)
	g.s.Must("release", "start", "shop-v2")
}

// awaitStatus waits until the release is as wanted.
func (g *site) awaitStatus(what string, within time.Duration, is func(api.ReleaseView) bool) api.ReleaseView {
	g.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		v := g.status()
		switch {
		case is(v):
			return v
		case time.Now().After(end):
			g.t.Fatalf("after %v not %s: the release is %s: %s, waiting for %q\nfindings: %+v\nhistory: %+v", within, what, v.Phase, v.Reason, v.Waiting, v.Findings, v.History)
		}
	}
}

func (g *site) awaitEnd(phase string, within time.Duration) api.ReleaseView {
	g.t.Helper()
	return g.awaitStatus(phase, within, func(v api.ReleaseView) bool {
		if (v.Phase == "RolledBack" || v.Phase == "Aborted" || v.Phase == "Succeeded") && v.Phase != phase {
			g.t.Fatalf("the release is %s: %s, want %s\nhistory: %+v", v.Phase, v.Reason, phase, v.History)
		}
		return v.Phase == phase
	})
}

// breakerState is a value of the map breakers, which keeps what it had when it
// tripped, also when the release is over.
type breakerState struct {
	Lock, Tripped         uint32
	Boot, Monotonic, Lost uint64
	Of                    [2]struct { // stable, the version
		Drained, Count uint64
		Level, Next    uint32
		Ring           [8][2]uint64
	}
	Trips, Closed                   uint32
	Shares, Look, Errors, Successes uint64
}

// awaitTrip waits until the breaker of the one release has tripped.
func (g *site) awaitTrip(breakers *ebpf.Map) breakerState {
	g.t.Helper()
	return g.awaitBreaker(breakers, 10*time.Second, "tripped", func(b breakerState) bool { return b.Tripped != 0 })
}

// awaitBreaker waits for a breaker that is as wanted. It asks the kernel: the
// daemon may stand still.
func (g *site) awaitBreaker(breakers *ebpf.Map, within time.Duration, what string, is func(breakerState) bool) breakerState {
	g.t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for room := range breakers.MaxEntries() {
			var b breakerState
			if err := breakers.LookupWithFlags(room, &b, ebpf.LookupLock); err != nil {
				g.t.Fatal(err)
			}
			if is(b) {
				return b
			}
		}
	}
	g.t.Fatalf("after %v no breaker has %s", within, what)
	return breakerState{}
}

// fates sorts guests by what they met.
type fates struct {
	failed       []bed.Visit
	stableFailed int
}

func fatesOf(visits []bed.Visit) fates {
	var f fates
	for _, v := range visits {
		if v.Err == nil {
			continue
		}
		f.failed = append(f.failed, v)
		if v.By == "stable" {
			f.stableFailed++
		}
	}
	return f
}

// spared wants no client of stable to have failed: none that it answered, and
// none by the kernel's counters, so that who failed met the canary.
func (g *site) spared(f fates) {
	g.t.Helper()
	if f.stableFailed > 0 {
		g.t.Errorf("%d clients of stable failed; the first failures: %v", f.stableFailed, f.failed[:min(3, len(f.failed))])
	}
	if n := g.s.Version("shop", "stable").Traffic.Errors.Sum(); n > 0 {
		g.t.Errorf("the kernel counts %d errors of stable", n)
	}
}

// again deletes the release and starts another one.
func (g *site) again(steps string, more ...string) {
	g.t.Helper()
	g.s.Must("delete", "release", "shop-v2")
	g.awaitGone("shop-v2")
	g.start(steps, more...)
}

func (g *site) awaitGone(release string) {
	g.t.Helper()
	g.s.Await("release "+release+" is gone", func() bool { return g.s.CLI("release", "status", release).Code != 0 })
}

// awaitEvent waits for an event of a reason, and returns its message.
func (g *site) awaitEvent(reason string) string {
	g.t.Helper()
	message := ""
	g.s.Await("an event "+reason, func() bool {
		var events []api.Event
		g.s.JSON(&events, "get", "events")
		i := slices.IndexFunc(events, func(e api.Event) bool { return e.Reason == reason })
		if i >= 0 {
			message = events[i].Message
		}
		return i >= 0
	})
	return message
}
