package daemon

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/rollout"
)

// After a restart the judge knows nothing of a release that is over: what
// decided it is told from its history, that of its last run alone.
func TestHistoryTellsWhatDecided(t *testing.T) {
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	history := []api.DecisionView{
		{Time: at(1), Run: 1, To: "RollingBack", Verdict: "fail", Evidence: 900},
		{Time: at(5), Run: 2, To: "Progressing"},
		{Time: at(7), Run: 2, To: "RollingBack", Verdict: "fail", Evidence: 447, Findings: []api.FindingView{{Check: "errors", Verdict: "fail"}},
			Counts: []api.DecisionCount{{Version: "stable", Requests: 286}, {Version: "canary", Requests: 17, Errors: 3, ErringClients: 3}}},
		{Time: at(8), Run: 2, To: "RolledBack"},
	}
	over := api.ReleaseView{Phase: "RolledBack", Run: 2, History: history}
	addHistory(&over)
	want := api.ReleaseView{Phase: "RolledBack", Run: 2, History: history,
		Started: &api.Moment{Time: at(5)}, Changed: &api.Moment{Time: at(8)}, Verdict: "fail", Evidence: 447,
		Findings: []api.FindingView{{Check: "errors", Verdict: "fail"}},
		Versions: []api.ReleaseVersionView{{Name: "stable", Requests: 286}, {Name: "canary", Requests: 17, Errors: 3, ErringClients: 3}}}
	if d := cmp.Diff(want, over); d != "" {
		t.Errorf("over (-want +got)\n%s", d)
	}
	runs := api.ReleaseView{Phase: "Progressing", Run: 2, History: history}
	addHistory(&runs)
	if runs.Verdict != "" || len(runs.Versions) > 0 {
		t.Errorf("one that runs is told by an old verdict: %s of %v", runs.Verdict, runs.Versions)
	}
}

func TestLeaseLeft(t *testing.T) {
	now := time.Duration(bpf.BootNow())
	for name, c := range map[string]struct {
		kernel      rollout.Kernel
		least, most time.Duration // -1: none
	}{
		"none":  {rollout.Kernel{}, -1, -1},
		"lasts": {rollout.Kernel{Leased: true, LeaseUntil: now + time.Hour}, time.Minute, time.Hour},
		"over":  {rollout.Kernel{Leased: true, LeaseUntil: now - time.Second}, 0, 0},
		"ended": {rollout.Kernel{Latched: rollout.LeaseEnded}, 0, 0},
	} {
		got := time.Duration(-1)
		if left := leaseLeft(c.kernel); left != nil {
			got = *left
		}
		if got < c.least || got > c.most {
			t.Errorf("%s: %s is left, want %s to %s", name, got, c.least, c.most)
		}
	}
}
