package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"siskin.dev/siskin/api"
)

// SetRelease replaces what the Control says of a release, for tests of how it
// looks.
func (c *Control) SetRelease(v api.ReleaseView) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releases[v.Name] = &v
}

// applyRelease takes a document over; one that runs goes on.
func (c *Control) applyRelease(r *api.Release) {
	v := c.releases[r.Metadata.Name]
	if v == nil {
		v = &api.ReleaseView{Name: r.Metadata.Name, Phase: "Pending", Breaker: "closed"}
		c.releases[v.Name] = v
	}
	v.Services, v.Version, v.Steps = r.Spec.Services, r.Spec.Version, r.Spec.Strategy.Steps()
	v.FailSafe, v.EvidenceLimit = r.Spec.FailSafe, 10000/float64(r.Spec.FalseAlarm)
}

// Releases implements api.Control.
func (c *Control) Releases(context.Context) ([]api.ReleaseView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []api.ReleaseView
	for _, name := range slices.Sorted(maps.Keys(c.releases)) {
		v := *c.releases[name]
		v.History = nil
		out = append(out, v)
	}
	return out, c.Err
}

// Release implements api.Control.
func (c *Control) Release(_ context.Context, name string) (api.ReleaseView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.releases[name]
	if v == nil {
		return api.ReleaseView{}, fmt.Errorf("there is no release %q: %w", name, api.ErrNotFound)
	}
	return *v, c.Err
}

// DriveRelease implements api.Control: each command goes straight to where it
// leads when all is well.
func (c *Control) DriveRelease(ctx context.Context, name, verb string, full bool) (api.ReleaseView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.releases[name]
	if v == nil {
		return api.ReleaseView{}, fmt.Errorf("there is no release %q: %w", name, api.ErrNotFound)
	}
	to := map[string]map[string]string{
		api.VerbStart:   {"Pending": "Progressing"},
		api.VerbPause:   {"Progressing": "Paused"},
		api.VerbResume:  {"Paused": "Progressing"},
		api.VerbPromote: {"Progressing": "Progressing", "Paused": "Progressing"},
		api.VerbAbort:   {"Pending": "Aborted", "Progressing": "Aborted", "Paused": "Aborted", "RolledBack": "RolledBack", "Aborted": "Aborted"},
		api.VerbRetry:   {"RolledBack": "Progressing", "Aborted": "Progressing"},
		api.VerbUndo:    {"Succeeded": "RolledBack"},
	}[verb][v.Phase]
	if to == "" {
		return *v, fmt.Errorf("%w: release %s is %s: %s means nothing now", api.ErrConflict, name, v.Phase, verb)
	}
	d := api.DecisionView{Time: time.Unix(1_800_000_000+int64(len(v.History)), 0).UTC(), From: v.Phase, Reason: verb, By: api.Caller(ctx)}
	switch {
	case verb == api.VerbStart, verb == api.VerbRetry:
		v.Run, v.Step = v.Run+1, 1
	case verb == api.VerbPromote && (full || v.Step >= len(v.Steps)):
		to = "Succeeded"
	case verb == api.VerbPromote:
		v.Step++
	}
	v.Phase, v.Weight = to, 0
	if to == "Progressing" || to == "Paused" {
		for _, s := range v.Steps[:v.Step] {
			v.Weight = max(v.Weight, s.Weight)
		}
	}
	d.To, d.Run, d.Step, d.Weight = v.Phase, v.Run, v.Step, v.Weight
	v.History = append(v.History, d)
	return *v, nil
}

// Report implements api.Control.
func (c *Control) Report(_ context.Context, service, version string, o api.Outcomes) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.docs[service]
	if !ok {
		return fmt.Errorf("there is no service %q: %w", service, api.ErrNotFound)
	}
	if _, ok := d.Service.Spec.Versions[version]; !ok {
		return fmt.Errorf("service %s has no version %q: %w", service, version, api.ErrNotFound)
	}
	if c.Reports == nil {
		c.Reports = map[string]api.Outcomes{}
	}
	sum := c.Reports[service+"/"+version]
	c.Reports[service+"/"+version] = api.Outcomes{Success: sum.Success + o.Success, Failure: sum.Failure + o.Failure}
	return nil
}
