package test

import (
	"encoding/json"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// dashboard is what matters here of a Grafana dashboard.
type dashboard struct {
	Panels []struct {
		Type, Title string
		Targets     []struct{ Expr, LegendFormat string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	raw, err := os.ReadFile("../deploy/grafana/siskin.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// Every query of the dashboard has an answer while a canary of a real service
// is released, with native histograms and without.
func TestRootDashboard(t *testing.T) {
	g := openSite(t, bed.V4, bed.WebOptions{}, bed.WebOptions{})
	at := map[string]netip.AddrPort{"classic": hostPort(9090), "native": hostPort(9091)}
	g.r.Host.Prometheus(at["classic"], g.s.Listen())
	g.r.Host.Prometheus(at["native"], g.s.Listen(), "--enable-feature=native-histograms")
	g.open(atATime, 5, time.Millisecond)
	g.start("{weight: 40%, hold: 10m}")
	g.await(100, bed.By("canary"))
	for name, address := range at {
		g.s.Await("the service can be chosen by the Prometheus "+name, func() bool {
			services, err := g.r.Host.LabelValues(address, "siskin_weight_ratio", "service")
			return err == nil && slices.Equal(services, []string{"shop"})
		})
		for _, p := range readDashboard(t).Panels {
			for _, target := range p.Targets {
				t.Run(name+"/"+p.Title, func(t *testing.T) { g.answered(t, address, target.Expr, target.LegendFormat) })
			}
		}
	}
}

// answered wants a query to have series, each with the labels of its legend,
// and with numbers.
func (g *site) answered(t *testing.T, prometheus netip.AddrPort, expression, legend string) {
	t.Helper()
	asked := strings.NewReplacer("$service", "shop", "$interval", "5s").Replace(expression)
	// Rates need two scrapes after the traffic has begun, and 0/0 is no number.
	var series []bed.Series
	var err error
	good := func() bool {
		series, err = g.r.Host.Query(prometheus, asked)
		return err == nil && len(series) > 0 && !slices.ContainsFunc(series, func(s bed.Series) bool { return math.IsNaN(s.Value) })
	}
	for end := time.Now().Add(bed.Patience); !good(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s\nis answered by %+v, %v", asked, series, err)
		}
	}
	for _, s := range series {
		for _, part := range strings.Split(legend, "{{")[1:] {
			label, _, _ := strings.Cut(part, "}}")
			if s.Labels[label] == "" {
				t.Errorf("%s\nhas a series without the label %s of its legend: %v", asked, label, s.Labels)
			}
		}
	}
	if strings.Contains(asked, "by (version") && !strings.Contains(asked, "stable") && !g.both(series) {
		t.Errorf("%s\nis not answered for both versions: %+v", asked, series)
	}
}

func (g *site) both(series []bed.Series) bool {
	return slices.ContainsFunc(series, func(s bed.Series) bool { return s.Labels["version"] == "stable" }) &&
		slices.ContainsFunc(series, func(s bed.Series) bool { return s.Labels["version"] == "canary" })
}
