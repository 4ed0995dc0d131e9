package daemon

import (
	"cmp"
	"slices"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/health"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
)

// picture is what the views are made of, taken at one time.
type picture struct {
	status   []steering.ServiceStatus
	measured map[string]metrics.Service // not the retired ones, by name
	snap     metrics.Snapshot
	docs     documents // as they shall be
	bases    baselines
	problems map[string][]string
	backends map[uint32]bpf.Backend
	names    map[uint32]string // of interfaces
	checked  func(health.Backend) (health.Report, bool)
}

func (d *daemon) picture() (picture, error) {
	p := picture{
		status:   d.rec.Status(),
		measured: make(map[string]metrics.Service),
		backends: make(map[uint32]bpf.Backend),
		names:    make(map[uint32]string),
		checked:  d.checker.Report,
	}
	d.mu.Lock()
	p.docs, p.bases, p.problems = d.intended.services, d.baselines, d.problems
	d.mu.Unlock()
	all := metrics.FromStatus(p.status)
	for i, s := range all {
		if !p.status[i].Retired {
			s.Baseline = p.bases.Services[s.Name].Opened
			p.measured[s.Name] = s
		}
	}
	var err error
	if p.snap, err = d.read(metrics.Want(all)); err != nil {
		return p, err
	}
	for id := range p.snap.Backends {
		b, err := d.backend(id)
		if err != nil {
			return p, err
		}
		p.backends[id] = b
		if _, ok := p.names[b.Ifindex]; !ok && b.Ifindex != 0 {
			// An interface that is gone has no name any more.
			p.names[b.Ifindex], _, _ = host.InterfaceByIndex(int(b.Ifindex))
		}
	}
	return p, nil
}

func (d *daemon) serviceViews() ([]api.ServiceView, error) {
	p, err := d.picture()
	if err != nil {
		return nil, err
	}
	out := []api.ServiceView{}
	for _, s := range p.status {
		if !s.Retired {
			out = append(out, p.service(s))
		}
	}
	return out, nil
}

func (d *daemon) backendViews() ([]api.BackendView, error) {
	p, err := d.picture()
	if err != nil {
		return nil, err
	}
	out := []api.BackendView{}
	for _, s := range p.status {
		for _, v := range s.Versions {
			for _, b := range v.Backends {
				out = append(out, p.backend(s, v, b))
			}
		}
	}
	rank := func(v string) int {
		if v == steering.Stable {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(out, func(a, b api.BackendView) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), rank(a.Version)-rank(b.Version),
			cmp.Compare(a.Version, b.Version), cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func (p picture) service(s steering.ServiceStatus) api.ServiceView {
	out := api.ServiceView{
		Name: s.Name, Group: s.Group, Epoch: s.Epoch,
		Affinity: affinityName(s.Affinity), SourceNAT: natName(s.SourceNAT), Observe: observeName(s.Observe),
		ConnectionsOnRollback: keep,
		Problems:              slices.Clone(p.problems[s.Name]),
	}
	for _, h := range s.Health() {
		if h.None() {
			out.Problems = append(out.Problems, problemText(lapse{h.Version, h.Family, h.Total}.check()))
		}
	}
	if doc := p.docs[s.Name]; doc != nil && doc.Spec.ConnectionsOnRollback != "" {
		out.ConnectionsOnRollback = doc.Spec.ConnectionsOnRollback
	}
	if b, ok := p.bases.Services[s.Name]; ok {
		changed := b.Changed
		out.WeightsChanged, out.WeightsChangedNs = &changed, b.ChangedNs
	}
	for _, f := range s.Frontends {
		if !f.Retired {
			out.Frontends = append(out.Frontends, api.Frontend(f.Frontend))
		}
	}
	shares, _ := metrics.Shares(p.measured[s.Name], p.snap)
	for _, v := range s.Versions {
		if v.Retired {
			continue
		}
		view := p.version(s, v)
		if share, ok := shares[v.Name]; ok {
			view.ShareRatio = &share
		}
		out.Versions = append(out.Versions, view)
	}
	return out
}

func (p picture) version(s steering.ServiceStatus, v steering.VersionStatus) api.VersionView {
	latency := p.snap.Latencies[v.Latency]
	out := api.VersionView{
		Name: v.Name, Weight: api.Share(v.Share),
		Connect: quantiles(&latency.Connect), Response: quantiles(&latency.Response),
		Backends: []api.BackendView{},
	}
	for _, b := range v.Backends {
		view := p.backend(s, v, b)
		// Removed backends are not shown here, but what they served counts.
		addTraffic(&out.Traffic, view.Traffic)
		out.LastSelectedNs = max(out.LastSelectedNs, view.LastSelectedNs)
		if !b.Retired {
			out.Backends = append(out.Backends, view)
		}
	}
	return out
}

func quantiles(h *bpf.Histogram) api.Quantiles {
	out := api.Quantiles{Count: metrics.Count(h)}
	if v, ok := metrics.Quantile(h, 0.5); ok {
		out.P50 = &v
	}
	if v, ok := metrics.Quantile(h, 0.99); ok {
		out.P99 = &v
	}
	return out
}

func (p picture) backend(s steering.ServiceStatus, v steering.VersionStatus, b steering.BackendStatus) api.BackendView {
	t := p.snap.Backends[b.ID]
	entry := p.backends[b.ID]
	out := api.BackendView{
		Service: s.Name, Version: v.Name, Address: b.Addr.String(), ID: b.ID, Weight: b.Weight,
		State: stateName(b), Path: pathName(entry), Interface: p.names[entry.Ifindex],
		Shared: b.Flags&bpf.BackendShared != 0, Traffic: traffic(t), LastSelectedNs: t.SelectedNs,
	}
	if !b.Retired {
		out.LastCheck = p.lastCheck(health.Backend{Service: s.Name, Version: v.Name, Addr: b.Addr})
	}
	return out
}

// lastCheck is what the last probe came to; nil: there was none.
func (p picture) lastCheck(b health.Backend) *api.CheckView {
	r, ok := p.checked(b)
	if !ok || r.At.IsZero() {
		return nil
	}
	return &api.CheckView{Time: r.At, Error: r.Error, Row: r.Row, Seconds: r.Latency.Seconds()}
}

func stateName(b steering.BackendStatus) string {
	switch {
	case b.Retired:
		return "retired"
	case b.State == steering.Draining:
		return "draining"
	case b.State == steering.Down:
		return "down"
	case b.State == steering.Starting:
		return "starting"
	}
	return "active"
}

func pathName(b bpf.Backend) string {
	switch {
	case b.Flags&bpf.BackendHost != 0:
		return "host"
	case b.Flags&bpf.BackendRemote != 0:
		return "remote"
	case b.Ifindex != 0:
		return "local"
	}
	return "unknown"
}

func traffic(t bpf.Tally) api.Traffic {
	return api.Traffic{
		Opened: t.Opened, Active: metrics.Active(t), Established: t.Established, Closed: t.Closed,
		Errors:      api.Errors{Refused: t.Refused, Timeout: t.Timeout, Reset: t.Reset, Unreachable: t.Unreachable, TLS: t.Tls},
		Packets:     api.Direction{In: t.Packets[0], Out: t.Packets[1]},
		Bytes:       api.Direction{In: t.Bytes[0], Out: t.Bytes[1]},
		Retransmits: api.Direction{In: t.Retransmits[0], Out: t.Retransmits[1]},
	}
}

func addTraffic(sum *api.Traffic, t api.Traffic) {
	sum.Opened += t.Opened
	sum.Active += t.Active
	sum.Established += t.Established
	sum.Closed += t.Closed
	addErrors(&sum.Errors, t.Errors)
	addDirection(&sum.Packets, t.Packets)
	addDirection(&sum.Bytes, t.Bytes)
	addDirection(&sum.Retransmits, t.Retransmits)
}

func addErrors(sum *api.Errors, e api.Errors) {
	sum.Refused += e.Refused
	sum.Timeout += e.Timeout
	sum.Reset += e.Reset
	sum.Unreachable += e.Unreachable
	sum.TLS += e.TLS
}

func addDirection(sum *api.Direction, d api.Direction) {
	sum.In += d.In
	sum.Out += d.Out
}
