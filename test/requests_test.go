package test

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// What is counted of requests is what clients were answered, of each version;
// and nothing where a service says so, also for the daemon after the next.
func TestRootRequests(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			g := openSite(t, f, bed.WebOptions{}, bed.WebOptions{})
			g.s.Weight("shop", "50%")
			g.open(atATime, 5, time.Millisecond)
			g.await(40, bed.By("canary"))
			g.seenNow(t)
			answers := map[string]float64{}
			for _, v := range g.guests.Stop() {
				if v.Err != nil {
					t.Errorf("%v: %v", v.From, v.Err)
				}
				answers[v.By] += float64(v.Answers)
			}
			g.counted(t, answers)

			g.s.Apply(bed.Service{
				Name: "shop", Proto: "tcp", Frontends: []netip.AddrPort{g.frontend}, Observe: "connections",
				Stable: []netip.AddrPort{g.stable.Addr}, Canary: []netip.AddrPort{g.canary.Addr},
			})
			g.open(atATime, 5, time.Millisecond)
			g.guests.Stop()
			g.counted(t, answers)

			// The state is lost with the daemon: the kernel knows.
			g.s.Kill()
			if err := os.RemoveAll(g.s.StateDir()); err != nil {
				t.Fatal(err)
			}
			g.s.Start()
			var services []api.ServiceView
			g.s.JSON(&services, "get", "services")
			if len(services) != 1 || services[0].Observe != "connections" {
				t.Errorf("after the restart: %+v", services)
			}
			g.open(atATime, 5, time.Millisecond)
			g.guests.Stop()
			g.counted(t, answers)
		})
	}
}

// seenNow wants both versions to answer now.
func (g *site) seenNow(t *testing.T) {
	t.Helper()
	var view api.RequestsView
	g.s.JSON(&view, "get", "requests", "shop", "--interval", "500ms")
	if len(view.Versions) != 2 || view.Seconds < 0.4 {
		t.Fatalf("requests: %+v", view)
	}
	for _, v := range view.Versions {
		if v.Answers.Code2xx == 0 || v.Answers.Sum() != v.Answers.Code2xx || v.Rate == 0 || v.Response.P99 == nil || v.Failures() > 0 {
			t.Errorf("%s now: %+v, %+v", v.Version, v.RequestCounts, v.Response)
		}
		t.Logf("%s: %.0f/s, %d of 2xx, p99 %.2g s", v.Version, v.Rate, v.Answers.Code2xx, *v.Response.P99)
	}
}

// counted wants these answers to have been counted, and no others.
func (g *site) counted(t *testing.T, answers map[string]float64) {
	t.Helper()
	m := g.s.Scrape()
	for version, want := range answers {
		known, err := m.Sum("siskin_requests_total", "version", version, "code", "2xx")
		if err != nil {
			t.Fatal(err)
		}
		all, _ := m.Sum("siskin_requests_total", "version", version)
		if known != want || all != want {
			t.Errorf("%s: %v of 2xx were counted and %v in all, clients were answered %v times", version, known, all, want)
		}
	}
}
