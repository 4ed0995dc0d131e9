package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/api"
)

// answers makes requests that begin at from, one a nanosecond: the first are
// answered by the server, the next fail, the rest get stable.
func answers(from int64, server string, its, failed, stable int) (out []Request) {
	for i := range its + failed + stable {
		r := Request{Start: from + int64(i), Client: i % Clients}
		switch {
		case i < its:
			r.Server = server
		case i < its+failed:
			r.Err = "reset"
		default:
			r.Server = "stable1"
		}
		out = append(out, r)
	}
	return out
}

func TestPhaseProblems(t *testing.T) {
	tests := []struct {
		name     string
		phase    Phase
		requests []Request
		want     string // part of the one problem; "": none
	}{
		{"as asked", Phase{Asked: 0.05}, answers(0, good, 500, 0, 9500), ""},
		{"by chance a little more", Phase{Asked: 0.05}, answers(0, good, 590, 0, 9410), ""},
		{"by no chance", Phase{Asked: 0.05}, answers(0, good, 610, 0, 9390), "answered 6.10 %"},
		{"too little", Phase{Asked: 0.05}, answers(0, good, 390, 0, 9610), "answered 3.90 %"},
		{"a failure", Phase{Asked: 0.05}, answers(0, good, 500, 1, 9499), "1 of 10000 requests failed"},
		{"nothing", Phase{Asked: 0.05}, nil, "no request"},
		{"nothing for the version", Phase{Asked: 0}, answers(0, good, 0, 0, 100), ""},
		{"one for the version", Phase{Asked: 0}, answers(0, good, 1, 0, 10000), "answered 0.01 %"},
		{"everything", Phase{Asked: 1}, answers(0, good, 100, 0, 0), ""},
		{"not everything", Phase{Asked: 1}, answers(0, good, 9999, 0, 1), "answered 99.99 %"},
		{"broken", Phase{Asked: 0.05, Broken: true}, answers(0, good, 0, 250, 750), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.phase.Server, tt.phase.From, tt.phase.To = good, -margin, math.MaxInt64
			phases := []Phase{tt.phase}
			count(phases, tt.requests)
			got := phases[0].problems()
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("problems %q, want one with %q", got, tt.want)
			}
		})
	}
}

func TestCountLeavesTheEndsOut(t *testing.T) {
	phases := []Phase{{From: 0, To: 3 * margin}}
	count(phases, []Request{{Start: margin - 1}, {Start: margin}, {Start: 2*margin - 1, Client: 1}, {Start: 2 * margin}})
	want := []Phase{{To: 3 * margin, Requests: 2, Clients: 2, Answered: 2}}
	if diff := cmp.Diff(want, phases); diff != "" {
		t.Errorf("phases (-want +got)\n%s", diff)
	}
}

func TestReturn(t *testing.T) {
	const began, decided = int64(10e9), int64(12e9)
	failed := func(at int64) Request { return Request{Start: at, Err: "reset"} }
	tests := []struct {
		name     string
		requests []Request
		last     int64
		want     string // part of the one problem; "": none
	}{
		{"as it must be", []Request{failed(11e9), failed(12e9), {Start: 13e9, Server: good}}, decided + 300_000, ""},
		{"nothing failed", nil, decided, "no request failed"},
		{"before it began", []Request{failed(9e9), failed(11e9)}, decided, "1 requests failed that"},
		{"long after", []Request{failed(11e9), failed(14e9)}, decided, "1 requests failed that"},
		{"never chosen", []Request{failed(11e9)}, 0, "never chose"},
		{"chosen long after", []Request{failed(11e9)}, decided + 2e9, "2s after the decision"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Return{Decided: decided, LastCanary: tt.last}
			r.failures(tt.requests, began)
			got := r.problems()
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("problems %q, want one with %q", got, tt.want)
			}
		})
	}
}

// second is that of the recorded demo; its clocks agree.
func second(n float64) int64 { return int64(n * 1e9) }

// record writes what a demo writes down: version 2 at 5 % from second 1 on, at
// 50 % from 4 on, stable from 7 on; version 3 from 10 to 12.
func record(t *testing.T, dir string, requests []Request, lastCanary int64) {
	t.Helper()
	write := func(name string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	decision := func(at int64, to string, weight api.Share) api.DecisionView {
		return api.DecisionView{Time: time.Unix(0, at), To: to, Weight: weight}
	}
	steps := []api.ReleaseStep{{Weight: 500}, {Weight: 5000}}
	write("v2.json", api.ReleaseView{Name: "checkout-v2", Phase: succeeded, Steps: steps, History: []api.DecisionView{
		decision(second(1), progressing, 0), decision(second(1), progressing, 500), decision(second(4), progressing, 5000),
		decision(second(7), "Promoting", 10000), decision(second(7), succeeded, 0),
	}})
	write("v3.json", api.ReleaseView{Name: "checkout-v3", Phase: rolledBack, Cause: "judged worse", Evidence: 447, EvidenceLimit: 100, Steps: steps,
		History: []api.DecisionView{
			decision(second(10), progressing, 500), decision(second(12), rollingBack, 0), decision(second(12), rolledBack, 0),
		}})
	write("services.json", []api.ServiceView{{Versions: []api.VersionView{{Name: canary, LastSelectedNs: uint64(lastCanary)}}}})
	if err := WriteRequests(filepath.Join(dir, "requests"), requests); err != nil {
		t.Fatal(err)
	}
}

func TestReport(t *testing.T) {
	page := "siskin_release_phase{phase=\"Succeeded\",release=\"checkout-v2\"} 1\nsiskin_release_phase{phase=\"Paused\",release=\"checkout-v2\"} 0\n"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, page)
	}))
	t.Cleanup(server.Close)
	var fine []Request
	for _, p := range []struct {
		at                    float64
		server                string
		its, failed, ofOthers int
	}{
		{2, good, 500, 0, 9500}, {5, good, 5000, 0, 5000}, {8, good, 1000, 0, 0}, {11, bad, 50, 3, 947}, {13, bad, 0, 0, 1000},
	} {
		fine = append(fine, answers(second(p.at), p.server, p.its, p.failed, p.ofOthers)...)
	}
	run := func(t *testing.T, requests []Request, lastCanary int64) (string, error) {
		dir, out := t.TempDir(), bytes.Buffer{}
		record(t, dir, requests, lastCanary)
		err := report(t.Context(), &out, dir, server.URL, Clocks{Wall: time.Unix(20, 0), Monotonic: second(20)})
		return out.String(), err
	}

	t.Run("good", func(t *testing.T) {
		out, err := run(t, fine, second(12)-900)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"v2 at 5%         5.00 %     5.00 %        10000      0\n",
			"v2 is stable     100.00 %   100.00 %      1000       0\n",
			"v3 at 5%         5.00 %     5.02 %        1000       3\n",
			"v3 rolled back   0.00 %     0.00 %        1000       0\n",
			"decided 1s after the first request that failed; 3 failed in all.",
			"to the broken version 900ns before the decision.",
			`siskin_release_phase{phase="Succeeded",release="checkout-v2"} 1`,
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the report does not hold %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "Paused") {
			t.Errorf("the report shows metrics that do not concern the demo:\n%s", out)
		}
	})
	t.Run("a failure after the rollback", func(t *testing.T) {
		_, err := run(t, append(answers(second(14), bad, 0, 1, 0), fine...), second(12))
		if err == nil || !strings.Contains(err.Error(), "v3 rolled back: 1 of 1001 requests failed") {
			t.Errorf("error %v, want one about the failed request", err)
		}
	})
	t.Run("a choice long after the rollback", func(t *testing.T) {
		_, err := run(t, fine, second(15))
		if err == nil || !strings.Contains(err.Error(), "chose the broken version 3s after the decision") {
			t.Errorf("error %v, want one about the late choice", err)
		}
	})
}

func TestEnds(t *testing.T) {
	up := api.ReleaseView{Phase: succeeded}
	down := api.ReleaseView{Phase: rolledBack, Cause: "judged worse", Evidence: 447, EvidenceLimit: 100, History: []api.DecisionView{{}}}
	if got := ends(up, down); len(got) > 0 {
		t.Errorf("as they must be: %q", got)
	}
	halfway := up
	halfway.Steps = []api.ReleaseStep{{Weight: 500}}
	for name, wrong := range map[string][2]api.ReleaseView{
		"a step was left out": {halfway, down}, "the good one went back": {down, down}, "the bad one went through": {up, up},
	} {
		if len(ends(wrong[0], wrong[1])) == 0 {
			t.Errorf("%s, and nobody noticed", name)
		}
	}
	down.Cause = "breaker tripped"
	if len(ends(up, down)) == 0 {
		t.Error("another cause, and nobody noticed")
	}
}
