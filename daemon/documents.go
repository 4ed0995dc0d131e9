package daemon

import (
	"maps"
	"slices"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

// documents are the services that shall be, by name.
type documents map[string]*api.Service

// desired returns them as the reconciler wants them, in the order of names.
func (d documents) desired() []steering.Service {
	out := make([]steering.Service, 0, len(d))
	for _, s := range d.sorted() {
		out = append(out, s.Steering())
	}
	return out
}

func (d documents) sorted() []*api.Service {
	out := make([]*api.Service, 0, len(d))
	for _, name := range slices.Sorted(maps.Keys(d)) {
		out = append(out, d[name])
	}
	return out
}

// documentOf writes down a service that is known from the kernel only.
func documentOf(s steering.Service) *api.Service {
	out := &api.Service{APIVersion: api.APIVersion, Kind: api.KindService, Metadata: api.Metadata{Name: s.Name}}
	spec := &out.Spec
	spec.Affinity, spec.SourceNAT = affinityName(s.Affinity), natName(s.SourceNAT)
	spec.Observe, spec.ConnectionsOnRollback = observeName(s.Observe), keep
	for _, f := range s.Frontends {
		spec.Frontends = append(spec.Frontends, api.Frontend(f))
	}
	spec.Versions = make(map[string]api.VersionSpec, len(s.Versions))
	for _, v := range s.Versions {
		var backends []api.Backend
		for _, b := range v.Backends {
			backends = append(backends, api.Backend{Address: b.Addr, Weight: b.Weight})
		}
		spec.Versions[v.Name] = api.VersionSpec{Backends: backends}
	}
	for name, share := range s.Weights {
		if spec.Weights == nil {
			spec.Weights = make(map[string]api.Share)
		}
		spec.Weights[name] = api.Share(share)
	}
	return out
}

func affinityName(a steering.Affinity) string {
	if a == steering.ByConnection {
		return "connection"
	}
	return "client"
}

func observeName(o steering.Observe) string {
	switch o {
	case steering.Requests:
		return "requests"
	case steering.Connections:
		return "connections"
	}
	return "auto"
}

func natName(n steering.SourceNAT) string {
	switch n {
	case steering.Always:
		return "always"
	case steering.Never:
		return "never"
	}
	return "auto"
}
