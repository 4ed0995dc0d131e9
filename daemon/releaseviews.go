package daemon

import (
	"cmp"
	"maps"
	"slices"

	"siskin.dev/siskin/analysis"
	"siskin.dev/siskin/api"
	"siskin.dev/siskin/conduct"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/rollout"
	"siskin.dev/siskin/steering"
)

func (d *daemon) releaseView(s conduct.Status) api.ReleaseView {
	spec, st := s.Document.Spec, s.State
	v := api.ReleaseView{
		Name: s.Document.Metadata.Name, Services: spec.Services, Version: cmp.Or(st.Plan.Version, spec.Version),
		Phase: st.Phase.String(), Cause: string(st.Cause), Reason: st.Reason, Run: st.Run,
		Step: st.Step + 1, HeldSeconds: st.Held.Seconds(), Waiting: slices.Clone(st.Waiting), EditsWaiting: st.Waits,
		Weight: api.Share(s.Weight), FailSafe: spec.FailSafe, Breaker: breakerText(s),
		Findings: []api.FindingView{}, Versions: []api.ReleaseVersionView{},
		EvidenceLimit: float64(rollout.Whole) / float64(max(spec.FalseAlarm, 1)),
		CanBeUndone:   st.Phase == rollout.Succeeded,
	}
	if st.Phase == rollout.Pending {
		v.Step = 0
	}
	for _, h := range st.Plan.Steps {
		v.Steps = append(v.Steps, api.ReleaseStep{Weight: api.Share(h.Weight), Hold: api.Duration(h.For), Pause: h.Pause})
	}
	if v.Steps == nil {
		v.Steps = spec.Strategy.Steps()
	}
	if n := s.Opened[0] + s.Opened[1]; n > 0 {
		v.ShareRatio = new(float64(s.Opened[1]) / float64(n))
	}
	if s.Trouble != "" {
		v.Waiting = append(v.Waiting, s.Trouble)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Problems)) {
		v.Waiting = append(v.Waiting, name+": "+s.Problems[name])
	}
	if left := leaseLeft(s.Kernel); left != nil {
		v.LeaseSecondsLeft = new(left.Seconds())
	}
	v.ConnectionsLeft = d.connectionsLeft(s)
	addJudgement(&v, s)
	return v
}

// connectionsLeft counts the open connections of a version that was taken back;
// nil where none is left, or where the version has new ones again.
func (d *daemon) connectionsLeft(s conduct.Status) *uint64 {
	back := []rollout.Phase{rollout.RollingBack, rollout.RolledBack, rollout.Aborted}
	if !slices.Contains(back, s.State.Phase) || s.State.Run == 0 || s.Kernel.Share != 0 {
		return nil
	}
	p := s.State.Plan
	var ids []uint32
	for _, service := range d.rec.Named(p.Services...) {
		for _, v := range service.Versions {
			for _, b := range v.Backends {
				if v.Name == p.Version {
					ids = append(ids, b.ID)
				}
			}
		}
	}
	snap, err := d.read(metrics.Wanted{Backends: ids})
	if err != nil {
		d.log.Warn("cannot count the connections that a release has left", "release", p.Release, "error", err)
		return nil
	}
	var n uint64
	for _, id := range ids {
		n += metrics.Active(snap.Backends[id])
	}
	if n == 0 {
		return nil
	}
	return &n
}

// addJudgement adds what the judge said last.
func addJudgement(v *api.ReleaseView, s conduct.Status) {
	j, o := s.Judgement, s.Observation
	if j == nil {
		return
	}
	v.Verdict, v.Evidence = j.Verdict.String(), j.Evidence
	if j.MayHide >= 0 && o.Canary.Requests > 0 {
		v.MayHide = new(j.MayHide)
	}
	for _, f := range rollout.FindingsOf(j.Findings) {
		v.Findings = append(v.Findings, findingView(f))
	}
	v.Versions = []api.ReleaseVersionView{
		versionOf(steering.Stable, o.Stable, o.StableLatency), versionOf(v.Version, o.Canary, o.CanaryLatency),
	}
}

// addHistory adds what only the history knows: when, and what was counted by the
// one who decided where the judge has forgotten it, as after a restart.
func addHistory(v *api.ReleaseView) {
	for _, d := range v.History {
		if d.Run != v.Run {
			continue
		}
		if v.Started == nil {
			v.Started = &api.Moment{Time: d.Time}
		}
		v.Changed = &api.Moment{Time: d.Time}
	}
	if v.Verdict != "" || !slices.Contains([]string{rollout.Succeeded.String(), rollout.RolledBack.String(), rollout.Aborted.String()}, v.Phase) {
		return
	}
	for _, d := range slices.Backward(v.History) {
		if d.Run != v.Run || d.Verdict == "" {
			continue
		}
		v.Verdict, v.Evidence, v.MayHide = d.Verdict, d.Evidence, d.MayHide
		v.Findings = append(v.Findings, d.Findings...)
		for _, c := range d.Counts {
			v.Versions = append(v.Versions, api.ReleaseVersionView{Name: c.Version, Requests: c.Requests, Errors: c.Errors, ErringClients: c.ErringClients})
		}
		return
	}
}

func versionOf(name string, r analysis.Rate, h analysis.Histogram) api.ReleaseVersionView {
	out := api.ReleaseVersionView{Name: name, Requests: r.Requests, Errors: r.Bad, ErringClients: r.Clients}
	if len(h.Counts) == 0 {
		return out
	}
	out.Response.Count = h.Total()
	if q, ok := h.Quantile(0.5); ok {
		out.Response.P50 = new(q.Seconds())
	}
	if q, ok := h.Quantile(0.99); ok {
		out.Response.P99 = new(q.Seconds())
	}
	return out
}

func findingView(f rollout.Finding) api.FindingView {
	out := api.FindingView{Check: f.Check, Verdict: f.Verdict, Reason: f.Reason, Evidence: f.Evidence}
	if f.MayHide >= 0 {
		out.MayHide = new(f.MayHide)
	}
	return out
}

// States of a release's breaker.
const (
	breakerOff    = "off"
	breakerClosed = "closed"
	breakerOpen   = "open"
)

func breakerText(s conduct.Status) string {
	switch {
	case s.Document.Spec.Breaker == 0:
		return breakerOff
	case s.Kernel.Latched == rollout.BreakerTripped, s.State.Cause == rollout.ByBreaker:
		return breakerOpen
	}
	return breakerClosed
}

func decisionView(d rollout.Decision) api.DecisionView {
	out := api.DecisionView{
		Time: d.Time, Run: d.Run, Step: d.Step + 1, From: d.From.String(), To: d.To.String(), Weight: api.Share(d.Weight),
		Cause: string(d.Cause), Reason: d.Reason, By: d.By, Verdict: d.Verdict, Evidence: d.Evidence, Actions: d.Actions,
	}
	if d.Verdict != "" && d.MayHide >= 0 {
		out.MayHide = new(d.MayHide)
	}
	for _, f := range d.Findings {
		out.Findings = append(out.Findings, findingView(f))
	}
	for _, c := range d.Counts {
		out.Counts = append(out.Counts, api.DecisionCount{Version: c.Version, Requests: c.Requests, Errors: c.Errors, ErringClients: c.Clients})
	}
	return out
}
