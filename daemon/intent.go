package daemon

import (
	"fmt"
	"maps"
	"slices"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/steering"
)

// intent is everything that shall be. It is replaced, never changed.
type intent struct {
	// services are what was applied, and what was promoted since: a promotion is
	// state, and applying the same document again does not undo it.
	services documents
	applied  documents // as they were applied last
	releases map[string]*api.Release
	promoted map[string]promotion // by release
}

// promotion is what a release has made stable.
type promotion struct {
	Run     int    `json:"run"`
	Version string `json:"version"`
	// Before are stable's backends before it, by service.
	Before map[string][]api.Backend `json:"before"`
}

func (i intent) clone() intent {
	out := intent{
		services: maps.Clone(i.services), applied: maps.Clone(i.applied),
		releases: maps.Clone(i.releases), promoted: maps.Clone(i.promoted),
	}
	if out.services == nil {
		out.services = documents{}
	}
	if out.applied == nil {
		out.applied = documents{}
	}
	if out.releases == nil {
		out.releases = map[string]*api.Release{}
	}
	if out.promoted == nil {
		out.promoted = map[string]promotion{}
	}
	return out
}

// with returns the intent after an apply of documents, and what merging them
// came to by the names of services.
func (i intent) with(docs []api.Document) (intent, map[string]api.Merged, error) {
	out, merges := i.clone(), map[string]api.Merged{}
	for _, doc := range docs {
		if doc.Release != nil {
			out.releases[doc.Name()] = doc.Release
			continue
		}
		m, err := api.Merge(i.applied[doc.Name()], i.services[doc.Name()], doc.Service)
		if err != nil {
			return i, nil, err
		}
		merges[doc.Name()] = m
		out.services[doc.Name()], out.applied[doc.Name()] = m.Service, doc.Service
	}
	return out, merges, nil
}

// without returns the intent after a deletion.
func (i intent) without(kind, name string) intent {
	out := i.clone()
	if kind == api.KindRelease {
		delete(out.releases, name) // what it has promoted is needed until it is over
		return out
	}
	delete(out.services, name)
	delete(out.applied, name)
	return out
}

// validate checks the whole.
func (i intent) validate() error {
	if err := steering.Validate(i.desired()); err != nil {
		return err
	}
	services := i.services.sorted()
	for _, r := range i.sortedReleases() {
		if err := api.CheckRelease(r, services); err != nil {
			return err
		}
	}
	return i.checkGroups()
}

// desired returns the services as the reconciler wants them: those that change
// together in a release share a weight word.
func (i intent) desired() []steering.Service {
	out := i.services.desired()
	groups := i.groups()
	for n := range out {
		out[n].Group = groups[out[n].Name]
	}
	return out
}

// groups are the services of releases of more than one, with the group's name.
func (i intent) groups() map[string]string {
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(i.releases)) {
		services := i.releases[name].Spec.Services
		if len(services) < 2 {
			continue
		}
		group := name
		for _, s := range services { // another release of the same services shares their word
			if g, ok := out[s]; ok {
				group = g
			}
		}
		for _, s := range services {
			out[s] = group
		}
	}
	return out
}

// checkGroups refuses a release of some services where another is of some of
// them and of others: one weight word cannot be both.
func (i intent) checkGroups() error {
	of := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(i.releases)) {
		services := slices.Sorted(slices.Values(i.releases[name].Spec.Services))
		for _, s := range services {
			other, taken := of[s]
			if taken && !slices.Equal(services, slices.Sorted(slices.Values(i.releases[other].Spec.Services))) {
				return &steering.FieldError{Service: name, Field: "spec.services", Problem: fmt.Sprintf(
					"service %s is also in release %s, which has other services: services that change together share one weight; name the same ones in both, or delete release %s", s, other, other)}
			}
			of[s] = name
		}
	}
	return nil
}

// promote returns the intent after a release has made its version stable, or
// with back after that was taken back.
func (i intent) promote(release string, run int, services []string, version string, back bool) (intent, error) {
	out := i.clone()
	p, done := out.promoted[release]
	done = done && p.Run == run
	switch {
	case back && !done:
		return i, nil // this run has promoted nothing
	case back:
		for name, backends := range p.Before {
			if s := out.services[name]; s != nil {
				out.services[name] = withBackends(s, steering.Stable, backends)
			}
		}
		delete(out.promoted, release)
		return out, nil
	case done:
		return i, nil
	}
	p = promotion{Run: run, Version: version, Before: map[string][]api.Backend{}}
	for _, name := range services {
		s := out.services[name]
		if s == nil {
			return i, fmt.Errorf("service %s: %w", name, api.ErrNotFound)
		}
		next, ok := s.Spec.Versions[version]
		if !ok {
			return i, fmt.Errorf("service %s has no version %s any more", name, version)
		}
		p.Before[name] = s.Spec.Versions[steering.Stable].Backends
		out.services[name] = withBackends(s, steering.Stable, next.Backends)
	}
	out.promoted[release] = p
	return out, nil
}

// withBackends returns a copy of a service in which a version has these
// backends.
func withBackends(s *api.Service, version string, backends []api.Backend) *api.Service {
	out := *s
	out.Spec.Versions = maps.Clone(s.Spec.Versions)
	v := out.Spec.Versions[version]
	v.Backends = slices.Clone(backends)
	out.Spec.Versions[version] = v
	return &out
}

// of returns the services that a release changes, as they shall be now. Those
// that are gone are left out.
func (i intent) of(r *api.Release) []*api.Service {
	var out []*api.Service
	for _, name := range r.Spec.Services {
		if s := i.services[name]; s != nil {
			out = append(out, s)
		}
	}
	return out
}

// wants returns the releases that name a service.
func (i intent) wants(service string) []string {
	var out []string
	for name, r := range i.releases {
		if slices.Contains(r.Spec.Services, service) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// withFiles adds what was read from the files given at the start, unless those
// are wrong: fileErr tells of the files by themselves. A daemon that does not
// start cannot roll back either, so next is then what was applied before, and
// refused says why. Where that is nothing, or wrong itself, err does.
func (i intent) withFiles(files []api.Document, fileErr error) (next intent, refused, err error) {
	if fileErr == nil {
		next, _, fileErr = i.with(files)
	}
	if fileErr == nil {
		fault := next.validate()
		if fault == nil {
			return next, nil, nil
		}
		fileErr = fmt.Errorf("the given files and what was applied before do not fit together: %w", fault)
	}
	if len(i.services) == 0 || i.validate() != nil {
		return intent{}, nil, fileErr
	}
	return i, fileErr, nil
}

// differing are the documents that were applied where a promotion has made the
// services others since.
func (i intent) differing() []*api.Service {
	var out []*api.Service
	for _, s := range i.applied.sorted() {
		if live := i.services[s.Metadata.Name]; live != nil {
			if d, err := api.Diff(live.Spec, s.Spec); err != nil || len(d) > 0 {
				out = append(out, s)
			}
		}
	}
	return out
}

func (i intent) sortedReleases() []*api.Release {
	var out []*api.Release
	for _, name := range slices.Sorted(maps.Keys(i.releases)) {
		out = append(out, i.releases[name])
	}
	return out
}

// alone is an intent of nothing but services.
func (d documents) alone() intent {
	return intent{services: d, applied: maps.Clone(d)}.clone()
}
