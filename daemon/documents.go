package daemon

import (
	"fmt"
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

// with returns a copy that holds docs, too.
func (d documents) with(docs []api.Document) documents {
	out := maps.Clone(d)
	if out == nil {
		out = documents{}
	}
	for _, doc := range docs {
		out[doc.Name()] = doc.Service
	}
	return out
}

// withFiles adds what was read from the files given at the start, unless those
// are wrong: fileErr tells of the files by themselves. A daemon that does not
// start cannot roll back either, so next is then what was applied before, and
// refused says why. Where that is nothing, or wrong itself, err does.
func (d documents) withFiles(files []api.Document, fileErr error) (next documents, refused, err error) {
	if fileErr == nil {
		next = d.with(files)
		fault := steering.Validate(next.desired())
		if fault == nil {
			return next, nil, nil
		}
		fileErr = fmt.Errorf("the given files and what was applied before do not fit together: %w", fault)
	}
	if len(d) == 0 || steering.Validate(d.desired()) != nil {
		return nil, nil, fileErr
	}
	return d, fileErr, nil
}

func (d documents) without(name string) documents {
	out := maps.Clone(d)
	delete(out, name)
	return out
}

// compare says what applying a document does to the object of its name.
func (d documents) compare(doc api.Document) (api.ObjectResult, error) {
	out := api.ObjectResult{Kind: doc.Kind(), Name: doc.Name(), Warnings: doc.Warnings()}
	old := d[doc.Name()]
	lines, err := diff(old, doc.Service)
	if err != nil {
		return out, err
	}
	out.Diff = lines
	switch {
	case old == nil:
		out.Outcome = api.OutcomeCreated
	case len(lines) > 0:
		out.Outcome = api.OutcomeChanged
	default:
		out.Outcome = api.OutcomeUnchanged
	}
	return out, nil
}

// diff compares two services field by field; old may be nil.
func diff(old, now *api.Service) ([]string, error) {
	var before any
	if old != nil {
		before = old.Spec
	}
	lines, err := api.Diff(before, now.Spec)
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", now.Metadata.Name, err)
	}
	return lines, nil
}

// withoutReleases refuses documents that this daemon does not carry out.
func withoutReleases(docs []api.Document) error {
	for _, r := range api.Releases(docs) {
		return fmt.Errorf("%w: release %s: this daemon drives no releases yet: leave it out and use siskin weight and siskin rollback", api.ErrInvalid, r.Metadata.Name)
	}
	return nil
}

// documentOf writes down a service that is known from the kernel only.
func documentOf(s steering.Service) *api.Service {
	out := &api.Service{APIVersion: api.APIVersion, Kind: api.KindService, Metadata: api.Metadata{Name: s.Name}}
	spec := &out.Spec
	spec.Affinity, spec.SourceNAT = affinityName(s.Affinity), natName(s.SourceNAT)
	spec.ConnectionsOnRollback = keep
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

func natName(n steering.SourceNAT) string {
	switch n {
	case steering.Always:
		return "always"
	case steering.Never:
		return "never"
	}
	return "auto"
}
