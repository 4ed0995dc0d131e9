package test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// Others know what the kernel cannot see. What they say is judged, and that they
// say nothing is never a pass. It is the same for both families.
func TestRootNginxOtherSources(t *testing.T) {
	g := openSite(t, bed.V4, bed.WebOptions{}, bed.WebOptions{})
	g.open(atATime, 5, time.Millisecond)
	g.release("{weight: 25%, hold: 300ms}")
	for _, c := range []struct {
		name string
		test func(*testing.T, *site)
	}{
		{"webhook refuses", webhookRefuses},
		{"webhook hangs", webhookHangs},
		{"webhook for each step", webhookEachStep},
		{"prometheus", prometheusSays},
		{"reported", reported},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.test(t, g.within(t)) }) {
			return // the release may be left anywhere
		}
	}
	if f := fatesOf(g.guests.Stop()).failed; len(f) > 0 {
		t.Errorf("%d guests failed: %v", len(f), f[:min(3, len(f))])
	}
}

// within is the site for a subtest.
func (g *site) within(t *testing.T) *site {
	s := &staged{t: t, r: g.r, s: g.s, family: g.family, frontend: g.frontend}
	return &site{staged: s, stable: g.stable, canary: g.canary, guests: g.guests}
}

func hostPort(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

func (g *site) rejected(parts ...string) {
	g.t.Helper()
	v := g.awaitEnd("RolledBack", 10*time.Second)
	if v.Cause != "judged worse" {
		g.t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
	}
	for _, part := range parts {
		if !strings.Contains(v.Reason, part) {
			g.t.Errorf("the reason does not name %q: %s", part, v.Reason)
		}
	}
	g.t.Log(v.Reason)
}

// holds wants the release to stay in its step, long after its hold, for lack of
// what a check waits for; the findings say so.
func (g *site) holds(check string, hold time.Duration) {
	g.t.Helper()
	v := g.awaitStatus("without data", 10*time.Second, func(v api.ReleaseView) bool {
		return v.Phase == "Progressing" && v.Verdict == "noData" && v.HeldSeconds >= hold.Seconds()
	})
	step := v.Step
	time.Sleep(700 * time.Millisecond) // nothing happens, and that cannot be awaited
	v = g.status()
	waiting := strings.Join(v.Waiting, "; ")
	if v.Phase != "Progressing" || v.Step != step || !strings.Contains(waiting, check) {
		g.t.Errorf("without data the release is %s in step %d, waiting for %q: %s", v.Phase, v.Step, waiting, v.Reason)
	}
	g.t.Logf("%s: waits for %s", v.Verdict, waiting)
}

func webhookRefuses(t *testing.T, g *site) {
	g.r.Host.ServeHTTP(hostPort(9100), func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too few orders", http.StatusInternalServerError)
	})
	g.again("{weight: 25%, hold: 10m}", `checks: [{name: orders, webhook: {url: "http://127.0.0.1:9100/", interval: 1s, timeout: 1s}}]`)
	g.rejected("orders", "it answers 500 Internal Server Error: too few orders")
}

// A step that is shorter than the time between two questions waits for an answer
// of its own.
func webhookEachStep(t *testing.T, g *site) {
	var asked atomic.Int64
	g.r.Host.ServeHTTP(hostPort(9102), func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	g.again("{weight: 10%, hold: 100ms}, {weight: 20%, hold: 100ms}, {weight: 30%, hold: 100ms}",
		`checks: [{name: orders, webhook: {url: "http://127.0.0.1:9102/", interval: 1s, timeout: 1s}}]`)
	g.awaitEnd("Succeeded", 10*time.Second)
	if n := asked.Load(); n < 3 {
		t.Errorf("it was promoted by %d answers, want one for each of 3 steps", n)
	}
	g.s.Must("release", "undo", "shop-v2")
	g.awaitEnd("RolledBack", 10*time.Second)
}

func webhookHangs(t *testing.T, g *site) {
	var hangs atomic.Bool
	hangs.Store(true)
	g.r.Host.ServeHTTP(hostPort(9101), func(_ http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			<-r.Context().Done()
		}
	})
	g.again("{weight: 25%, hold: 300ms}", `checks: [{name: orders, webhook: {url: "http://127.0.0.1:9101/", interval: 1s, timeout: 200ms}}]`)
	g.holds("orders", 300*time.Millisecond)
	hangs.Store(false)
	g.awaitEnd("Succeeded", 10*time.Second)
	g.s.Must("release", "undo", "shop-v2")
	g.awaitEnd("RolledBack", 10*time.Second)
}

func prometheusSays(t *testing.T, g *site) {
	p := g.r.Host.Prometheus(hostPort(9090), g.s.Listen())
	check := func(limit string) string {
		return fmt.Sprintf(`checks: [{name: weight, prometheus: {address: "http://127.0.0.1:9090", interval: 1s, timeout: 500ms, max: %s,
      query: 'max(siskin_weight_ratio{service="shop",version="canary"})'}}]`, limit)
	}
	g.again("{weight: 10%, hold: 1s}, {weight: 25%, hold: 10m}", check("0.2"))
	g.rejected("weight", "0.25", "at most 0.2")
	if n := len(g.status().History); n < 4 {
		t.Errorf("it was rejected before it had passed the first step: %+v", g.status().History)
	}
	g.again("{weight: 10%, hold: 300ms}, {weight: 25%, hold: 3s}", check("1"))
	g.awaitWeight(2500)
	p.Stop()
	g.holds("weight", 3*time.Second)
	g.s.Must("release", "abort", "shop-v2")
	g.awaitEnd("Aborted", 10*time.Second)
}

func reported(t *testing.T, g *site) {
	g.again("{weight: 25%, hold: 300ms}", "checks: [{name: tasks, reported: {}}]")
	g.holds("tasks", 300*time.Millisecond)
	g.s.Must("report", "shop", "stable", "success=1000", "failure=2")
	g.s.Must("report", "shop", "canary", "success=100", "failure=20")
	g.rejected("tasks", "20 of 120", "evidence")
}
