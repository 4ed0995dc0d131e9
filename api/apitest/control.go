// Package apitest holds a Control that remembers, for tests of what talks to
// the daemon.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

// Control is an api.Control without a kernel: Apply, Delete, SetWeights and
// Rollback change what Services returns.
type Control struct {
	mu        sync.Mutex
	docs      map[string]api.Document // services, by name
	releases  map[string]*api.ReleaseView
	weights   map[string]map[string]api.Share
	events    []api.Event
	news      chan struct{} // closed at the next event
	clock     int64
	Diagnosis api.DoctorReport        // what Doctor returns
	Reports   map[string]api.Outcomes // what was reported, by "service/version"
	FlowList  api.FlowList            // what Flows returns, unless the filter empties it
	Err       error                   // what every read returns, when set
}

// New returns a Control that knows no service.
func New() *Control {
	return &Control{docs: map[string]api.Document{}, releases: map[string]*api.ReleaseView{}, weights: map[string]map[string]api.Share{}, news: make(chan struct{})}
}

// Apply implements api.Control.
func (c *Control) Apply(_ context.Context, docs []api.Document, dryRun bool) (api.ApplyResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(c.docs)
	result := api.ApplyResult{DryRun: dryRun}
	applied := map[string]bool{}
	for _, d := range docs {
		o := api.ObjectResult{Kind: d.Kind(), Name: d.Name(), Outcome: api.OutcomeCreated, Diff: []string{"+ spec: " + d.Kind()}}
		known := c.releases[d.Name()] != nil
		if d.Service != nil {
			o.Diff = []string{"+ spec: " + d.Service.Spec.Affinity}
			_, known = all[d.Name()]
			all[d.Name()], applied[d.Name()] = d, true
		}
		if known {
			o.Outcome = api.OutcomeChanged
		}
		result.Objects = append(result.Objects, o)
	}
	// The applied ones last: where two are in conflict, they are to blame.
	var services []steering.Service
	var known []*api.Service
	for _, name := range slices.Sorted(maps.Keys(all)) {
		known = append(known, all[name].Service)
		if !applied[name] {
			services = append(services, all[name].Service.Steering())
		}
	}
	for _, s := range api.Services(docs) {
		services = append(services, s.Steering())
	}
	err := steering.Validate(services)
	for _, r := range api.Releases(docs) {
		err = errors.Join(err, api.CheckRelease(r, known))
	}
	if err != nil || dryRun {
		return result, err
	}
	for name := range applied {
		if c.weights[name] == nil {
			c.weights[name] = maps.Clone(all[name].Service.Spec.Weights)
		}
	}
	c.docs = all
	for _, r := range api.Releases(docs) {
		c.applyRelease(r)
	}
	return result, nil
}

// Delete implements api.Control.
func (c *Control) Delete(_ context.Context, kind, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, isService := c.docs[name]
	switch {
	case kind == api.KindService && isService:
		delete(c.docs, name)
		delete(c.weights, name)
	case kind == api.KindRelease && c.releases[name] != nil:
		delete(c.releases, name)
	default:
		return fmt.Errorf("there is no %s %q: %w", strings.ToLower(kind), name, api.ErrNotFound)
	}
	return nil
}

// Services implements api.Control.
func (c *Control) Services(context.Context) ([]api.ServiceView, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []api.ServiceView
	for _, name := range slices.Sorted(maps.Keys(c.docs)) {
		out = append(out, c.view(c.docs[name]))
	}
	return out, c.Err
}

func (c *Control) view(d api.Document) api.ServiceView {
	spec := d.Service.Spec
	v := api.ServiceView{Name: d.Name(), Frontends: spec.Frontends, Affinity: spec.Affinity,
		SourceNAT: spec.SourceNAT, Observe: spec.Observe, ConnectionsOnRollback: spec.ConnectionsOnRollback}
	shares := c.shares(d.Name())
	for _, version := range d.Service.Steering().Versions {
		ratio, p50, p99 := float64(shares[version.Name])/float64(steering.Whole), 0.00021, 0.0012
		vv := api.VersionView{Name: version.Name, Weight: shares[version.Name], ShareRatio: &ratio,
			Traffic: api.Traffic{Opened: 1234, Active: 12, Errors: api.Errors{Refused: 1, Timeout: 2}},
			Connect: api.Quantiles{Count: 1234, P50: &p50, P99: &p99}}
		for i, b := range version.Backends {
			vv.Backends = append(vv.Backends, api.BackendView{Service: d.Name(), Version: version.Name, Address: b.Addr.String(),
				ID: uint32(i + 1), Weight: b.Weight, State: "active", Path: "local", Interface: "veth0",
				Traffic: api.Traffic{Opened: 617, Bytes: api.Direction{In: 1000, Out: 5 << 20}}})
		}
		v.Versions = append(v.Versions, vv)
	}
	return v
}

// shares returns what every version gets; stable gets the rest.
func (c *Control) shares(service string) map[string]api.Share {
	out, rest := map[string]api.Share{}, api.Share(steering.Whole)
	for name := range c.docs[service].Service.Spec.Versions {
		out[name] = c.weights[service][name]
		rest -= out[name]
	}
	out[steering.Stable] = rest
	return out
}

// Backends implements api.Control.
func (c *Control) Backends(ctx context.Context) ([]api.BackendView, error) {
	services, err := c.Services(ctx)
	var out []api.BackendView
	for _, s := range services {
		for _, v := range s.Versions {
			out = append(out, v.Backends...)
		}
	}
	return out, err
}

// Flows implements api.Control.
func (c *Control) Flows(_ context.Context, f api.FlowFilter, limit int) (api.FlowList, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.FlowList
	out.Flows = slices.DeleteFunc(slices.Clone(out.Flows), func(v api.FlowView) bool {
		client, err := netip.ParseAddrPort(v.Client)
		return err != nil || f.Service != "" && v.Service != f.Service || f.Version != "" && v.Version != f.Version ||
			f.Backend != "" && v.Backend != f.Backend || f.State != "" && v.State != f.State ||
			f.Client != "" && client.Addr().String() != f.Client
	})
	out.Matched = uint64(len(out.Flows))
	if out.Truncated = len(out.Flows) > limit; out.Truncated {
		out.Flows = out.Flows[:limit]
	}
	return out, c.Err
}

// Emit adds an event.
func (c *Control) Emit(reason, object, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seq := uint64(len(c.events) + 1)
	c.events = append(c.events, api.Event{Seq: seq, Time: time.Unix(1_800_000_000, 0).UTC().Add(time.Duration(seq) * time.Second),
		Type: api.EventNormal, Reason: reason, Object: object, Message: message})
	close(c.news)
	c.news = make(chan struct{})
}

// Events implements api.Control.
func (c *Control) Events(ctx context.Context, after uint64, wait bool) ([]api.Event, error) {
	for {
		c.mu.Lock()
		news, events := c.news, c.events
		c.mu.Unlock()
		if after < uint64(len(events)) {
			return slices.Clone(events[after:]), nil
		}
		if !wait {
			return nil, c.Err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// SetWeights implements api.Control. Each store takes two microseconds.
func (c *Control) SetWeights(_ context.Context, service string, shares map[string]steering.Share) (api.WeightResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.docs[service]
	if !ok {
		return api.WeightResult{}, fmt.Errorf("there is no service %q: %w", service, api.ErrNotFound)
	}
	old := c.shares(service)
	next := maps.Clone(c.weights[service])
	if next == nil {
		next = map[string]api.Share{}
	}
	for name, s := range shares {
		next[name] = api.Share(s)
	}
	want := d.Service.Steering()
	want.Weights = map[string]steering.Share{}
	for name, s := range next {
		want.Weights[name] = steering.Share(s)
	}
	if err := steering.Validate([]steering.Service{want}); err != nil {
		return api.WeightResult{}, err
	}
	c.weights[service] = next
	c.clock += 2000
	return api.WeightResult{Service: service, Old: old, New: c.shares(service),
		StoredBeforeNs: c.clock - 2000, StoredAfterNs: c.clock, StoreMicros: 2}, nil
}

// Rollback implements api.Control.
func (c *Control) Rollback(_ context.Context, services []string, all bool) (api.RollbackResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all {
		services = slices.Sorted(maps.Keys(c.docs))
	}
	out := api.RollbackResult{RequestedNs: c.clock}
	var missing error
	for _, name := range services {
		if _, ok := c.docs[name]; !ok {
			missing = fmt.Errorf("there is no service %q: %w", name, api.ErrNotFound)
			continue
		}
		before := c.shares(name)
		c.weights[name] = nil
		c.clock += 1000
		out.Services = append(out.Services, api.RolledBack{Service: name, Before: before, StoredBeforeNs: c.clock - 1000, StoredAfterNs: c.clock,
			Connections: c.docs[name].Service.Spec.ConnectionsOnRollback})
	}
	out.StoredNs, out.TookMicros = c.clock, float64(c.clock-out.RequestedNs)/1000
	return out, missing
}

// Doctor implements api.Control.
func (c *Control) Doctor(context.Context) (api.DoctorReport, error) { return c.Diagnosis, c.Err }

// Version implements api.Control.
func (c *Control) Version(context.Context) (api.VersionInfo, error) {
	return api.VersionInfo{Version: "1.2.3", Go: "go1.26", Layout: 1, Kernel: "6.18"}, c.Err
}
