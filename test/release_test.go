package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// A staged service is one with a release and clients that come again and again.
type staged struct {
	t        *testing.T
	r        *bed.Routed
	s        *bed.Siskin
	family   bed.Family
	frontend netip.AddrPort
	stable   *bed.Server
	canary   netip.AddrPort
	tried    atomic.Int64 // clients so far: each is another one
}

// stage brings up a service with a canary at which nobody listens yet.
func stage(t *testing.T, f bed.Family, args ...string) *staged {
	t.Helper()
	r := bed.NewRouted(bed.New(t))
	g := &staged{t: t, r: r, family: f, frontend: netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)}
	g.stable = r.Near.ServeTCP(netip.AddrPortFrom(f.At(bed.Nearby, 2), 8081), "stable", bed.Answer)
	g.canary = netip.AddrPortFrom(f.At(bed.Nearby, 2), 8082)
	g.s = steer(t, r.Bed, r.Host, []string{"up0"}, args...)
	g.s.Apply(bed.Service{
		Name: "shop", Proto: "tcp", Frontends: []netip.AddrPort{g.frontend},
		Stable: []netip.AddrPort{g.stable.Addr}, Canary: []netip.AddrPort{g.canary},
	})
	return g
}

// serveCanary makes the canary a good one.
func (g *staged) serveCanary() { g.r.Near.ServeTCP(g.canary, "canary", bed.Answer) }

// release applies a release of the service: steps and what else its spec has.
// Few requests are enough for it where nothing else is said.
func (g *staged) release(steps string, more ...string) {
	g.t.Helper()
	doc := fmt.Sprintf(`apiVersion: siskin.dev/v1alpha1
kind: Release
metadata: {name: shop-v2}
spec:
  services: [shop]
  version: canary
  strategy: {canary: {steps: [%s]}}
  warmup: 0s
`, steps)
	for _, line := range []string{"minRequests: 20", "maxImpact: 99%"} {
		key, _, _ := strings.Cut(line, ":")
		if !slices.ContainsFunc(more, func(l string) bool { return strings.HasPrefix(l, key+":") }) {
			more = append(more, line)
		}
	}
	for _, line := range more {
		doc += "  " + line + "\n"
	}
	g.s.Must("apply", "-f", g.r.Bed.Write("release.yaml", doc))
}

// visit lets another client ask once, and returns who answered.
func (g *staged) visit() (string, error) {
	n := int(g.tried.Add(1))
	return g.r.Client.AskTCP(netip.AddrPortFrom(g.family.Visitor(n%200), 0), g.frontend)
}

// status is the release as it stands.
func (g *staged) status() api.ReleaseView {
	g.t.Helper()
	var v api.ReleaseView
	g.s.JSON(&v, "release", "status", "shop-v2", "-o", "json")
	return v
}

// until visits until the release is in a phase.
func (g *staged) until(phase string, within time.Duration) api.ReleaseView {
	g.t.Helper()
	for end := time.Now().Add(within); ; {
		for range 20 {
			_, _ = g.visit()
		}
		v := g.status()
		switch {
		case v.Phase == phase:
			return v
		case time.Now().After(end):
			g.t.Fatalf("after %s the release is %s: %s, waiting for %v; want %s\nhistory: %+v", within, v.Phase, v.Reason, v.Waiting, phase, v.History)
		}
	}
}

// awaitPhase waits until the release is in a phase by itself.
func (g *staged) awaitPhase(phase string) api.ReleaseView {
	g.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		v := g.status()
		switch {
		case v.Phase == phase:
			return v
		case time.Now().After(end):
			g.t.Fatalf("the release is %s: %s, want %s", v.Phase, v.Reason, phase)
		}
	}
}

// allStable wants every new connection to be answered by stable.
func (g *staged) allStable() {
	g.t.Helper()
	for range 60 {
		if who, err := g.visit(); err != nil || who != "stable" {
			g.t.Fatalf("answered by %q, %v; want stable", who, err)
		}
	}
}

// A canary that refuses connections is off after the fifth of its errors, of
// distinct clients, and not before a client of stable has noticed anything.
func TestRootReleaseBreaker(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := stage(t, f)
			g.release("{weight: 50%, hold: 1m}")
			g.s.Must("release", "start", "shop-v2")
			g.awaitWeight(5000)
			failed := 0
			for range 150 {
				if _, err := g.visit(); err != nil {
					failed++
				}
			}
			// All visitors of IPv6 are of one /64, so they are one client, who is
			// believed less.
			want := map[bed.Family]int{bed.V4: 5, bed.V6: 32}[f]
			if failed != want {
				t.Errorf("%d clients were refused, want %d", failed, want)
			}
			v := g.until("RolledBack", 5*time.Second)
			if v.Cause != "breaker tripped" {
				t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
			}
			t.Logf("%s: %s", v.Cause, v.Reason)
			g.allStable()
		})
	}
}

// awaitWeight waits until the release has its weight in the kernel.
func (g *staged) awaitWeight(basis int) {
	g.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var w api.Weights
		g.s.JSON(&w, "weight", "shop", "-o", "json")
		if int(w.Weights["canary"]) == basis {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("the weights are %v; the release: %+v", w.Weights, g.status())
		}
	}
}

// A good canary becomes stable, step by step, and can be undone.
func TestRootReleaseSucceeds(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := stage(t, f)
			g.serveCanary()
			g.release("{weight: 10%, hold: 500ms}, {weight: 50%, hold: 500ms}")
			g.s.Must("release", "start", "shop-v2")
			v := g.until("Succeeded", 30*time.Second)
			for range 40 {
				if who, err := g.visit(); err != nil || who != "canary" {
					t.Fatalf("after the promotion %q answers, %v", who, err)
				}
			}
			var w api.Weights
			g.s.JSON(&w, "weight", "shop", "-o", "json")
			if w.Weights["canary"] != 0 {
				t.Errorf("after the promotion the canary has %v", w.Weights)
			}
			for _, d := range v.History {
				t.Logf("%s → %s: %s", d.From, d.To, d.Reason)
			}
			// The same document again does not undo it.
			g.s.Apply(bed.Service{
				Name: "shop", Proto: "tcp", Frontends: []netip.AddrPort{g.frontend},
				Stable: []netip.AddrPort{g.stable.Addr}, Canary: []netip.AddrPort{g.canary},
			})
			if who, err := g.visit(); err != nil || who != "canary" {
				t.Errorf("after applying the document again %q answers, %v", who, err)
			}
			g.s.Must("release", "undo", "shop-v2")
			g.until("RolledBack", 10*time.Second)
			g.allStable()
		})
	}
}

// What is open at the version when it is taken back is told until it is gone.
func TestRootReleaseConnectionsLeft(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := stage(t, f)
			g.serveCanary()
			g.release("{weight: 50%, hold: 10m}")
			g.s.Must("release", "start", "shop-v2")
			g.awaitWeight(5000)
			chat := g.r.Client.ChatWith(20, g.frontend)
			open := g.s.Version("shop", "canary").Traffic.Active
			if left := g.status().ConnectionsLeft; open == 0 || left != nil {
				t.Fatalf("%d are open at the canary; while it runs %v are said to be left", open, left)
			}
			g.s.Must("release", "abort", "shop-v2")
			if v := g.awaitPhase("Aborted"); v.ConnectionsLeft == nil || *v.ConnectionsLeft != open {
				t.Errorf("%v connections are left, want %d", v.ConnectionsLeft, open)
			}
			if r := g.s.CLI("release", "status", "shop-v2"); !strings.Contains(r.Stdout, fmt.Sprintf("%d connections of canary", open)) {
				t.Errorf("not shown: %v", r)
			}
			if err := chat.Stop(); err != nil {
				t.Error(err)
			}
			g.s.Await("none is left", func() bool { return g.status().ConnectionsLeft == nil })
		})
	}
}
