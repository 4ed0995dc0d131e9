package main

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answers makes requests that begin at from, one a nanosecond: the first are
// answered by the canary, the next fail, the rest get stable.
func answers(from int64, canaries, failed, stable int) (out []Request) {
	for i := range canaries + failed + stable {
		r := Request{Start: from + int64(i), Client: i % Clients}
		switch {
		case i < canaries:
			r.Server = canary
		case i < canaries+failed:
			r.Err = "refused"
		default:
			r.Server = "stable1"
		}
		out = append(out, r)
	}
	return out
}

func TestPhaseProblems(t *testing.T) {
	share := func(f float64) *float64 { return &f }
	tests := []struct {
		name     string
		phase    Phase
		requests []Request
		want     string // part of the one problem; "": none
	}{
		{"as asked", Phase{Asked: 0.05, Kernel: share(0.05)}, answers(0, 500, 0, 9500), ""},
		{"by chance a little more", Phase{Asked: 0.05}, answers(0, 590, 0, 9410), ""},
		{"by no chance", Phase{Asked: 0.05}, answers(0, 610, 0, 9390), "answered 6.10 %"},
		{"too little", Phase{Asked: 0.05}, answers(0, 390, 0, 9610), "answered 3.90 %"},
		{"the kernel says otherwise", Phase{Asked: 0.05, Kernel: share(0.07)}, answers(0, 500, 0, 9500), "gave the canary 7.00 %"},
		{"a failure", Phase{Asked: 0.05}, answers(0, 500, 1, 9499), "1 of 10000 requests failed"},
		{"nothing", Phase{Asked: 0.05}, nil, "no request"},
		{"nothing for the canary", Phase{Asked: 0}, answers(0, 0, 0, 100), ""},
		{"one for the canary", Phase{Asked: 0}, answers(0, 1, 0, 10000), "answered 0.01 %"},
		{"broken, and seen", Phase{Asked: 0.25, Broken: true}, answers(0, 0, 250, 750), ""},
		{"broken, and nobody saw it", Phase{Asked: 0.25, Broken: true}, answers(0, 0, 0, 1000), "no request failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.phase.To = math.MaxInt64
			phases := []Phase{tt.phase}
			count(phases, tt.requests)
			got := phases[0].problems()
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("problems %q, want one with %q", got, tt.want)
			}
		})
	}
}

func TestCountBelongsToTheStart(t *testing.T) {
	phases := []Phase{{From: 100, To: 200}, {From: 200, To: 300}}
	count(phases, []Request{{Start: 99}, {Start: 100}, {Start: 199, Client: 1}, {Start: 200, Err: "reset"}, {Start: 300}})
	want := []Phase{{From: 100, To: 200, Requests: 2, Clients: 2}, {From: 200, To: 300, Requests: 1, Failed: 1, Clients: 1}}
	if diff := cmp.Diff(want, phases); diff != "" {
		t.Errorf("phases (-want +got)\n%s", diff)
	}
}

func TestFlip(t *testing.T) {
	tests := []struct {
		last int64
		text string
		fine bool
	}{
		{1_000_000, "3ms before the store", true},
		{4_000_000, "during the store", true},
		{4_000_100, "during the store", true},
		{4_000_101, "0s after the store", false},
		{4_001_100, "1µs after the store", false},
	}
	for _, tt := range tests {
		f := Flip{StoreBegan: 4_000_000, StoreEnd: 4_000_100, LastCanary: tt.last}
		if got := f.String(); got != tt.text || (len(f.problems()) == 0) != tt.fine {
			t.Errorf("last at %d: %q with problems %q", tt.last, got, f.problems())
		}
	}
	if len((Flip{}).problems()) == 0 {
		t.Error("a canary that was never chosen is no problem")
	}
}

// record writes what a demo writes down.
func record(t *testing.T, dir string, requests []Request, lastCanaryNs int64) {
	t.Helper()
	write := func(name, format string, args ...any) {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, format, args...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, share := range []float64{1, 5, 25} {
		write(fmt.Sprintf("weight-%d.json", i+1),
			`{"new": {"stable": "%v%%", "canary": "%v%%"}, "storedAfterNs": %d}`, 100-share, share, (i+1)*100_000)
		write(fmt.Sprintf("services-%d.json", i+1),
			`[{"name": "checkout", "versions": [{"name": "stable", "weight": "1%%"}, {"name": "canary", "weight": "1%%", "shareRatio": %v}]}]`, share/100)
	}
	write("broken", "400000\n")
	write("rollback.json", `{"services": [{"service": "checkout", "storedBeforeNs": 499900, "storedAfterNs": 500000}], "requestedNs": 490000}`)
	write("services-after.json", `[{"versions": [{"name": "canary", "weight": "0%%", "shareRatio": 0, "lastSelectedNs": %d}]}]`, lastCanaryNs)
	if err := WriteRequests(filepath.Join(dir, "requests"), requests); err != nil {
		t.Fatal(err)
	}
}

func TestReport(t *testing.T) {
	page := "siskin_weight_ratio{service=\"checkout\",version=\"canary\"} 0\nsiskin_drops_total{reason=\"no_flow\"} 3\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, page)
	}))
	t.Cleanup(server.Close)
	var good []Request
	for i, canaries := range []int{100, 500, 2500} {
		good = append(good, answers(int64(i+1)*100_000, canaries, 0, 10_000-canaries)...)
	}
	good = append(good, answers(400_000, 0, 250, 750)...)
	good = append(good, answers(500_000, 0, 0, 1000)...)

	t.Run("good", func(t *testing.T) {
		dir, out := t.TempDir(), bytes.Buffer{}
		record(t, dir, good, 499_000)
		if err := report(t.Context(), &out, dir, server.URL); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"canary at 5%     5.00 %    5.00 %        5.00 %        10000      0\n",
			"canary stopped   25.00 %   -             0.00 %        1000       250\n",
			"rolled back      0.00 %    0.00 %        0.00 %        1000       0\n",
			"The kernel's last choice of the canary: 900ns before the store.",
			`siskin_weight_ratio{service="checkout",version="canary"} 0`,
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the report does not hold %q:\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), "siskin_drops_total") {
			t.Errorf("the report shows metrics that do not concern the demo:\n%s", out.String())
		}
	})
	t.Run("a failure after the rollback", func(t *testing.T) {
		dir, out := t.TempDir(), bytes.Buffer{}
		record(t, dir, append(answers(600_000, 0, 1, 0), good...), 499_000)
		err := report(t.Context(), &out, dir, server.URL)
		if err == nil || !strings.Contains(err.Error(), "rolled back: 1 of 1001 requests failed") {
			t.Errorf("error %v, want one about the failed request", err)
		}
	})
	t.Run("a choice after the store", func(t *testing.T) {
		dir, out := t.TempDir(), bytes.Buffer{}
		record(t, dir, good, 502_000)
		err := report(t.Context(), &out, dir, server.URL)
		if err == nil || !strings.Contains(err.Error(), "chose the canary 2µs after the store") {
			t.Errorf("error %v, want one about the late choice", err)
		}
	})
}
