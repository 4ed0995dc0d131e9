package daemon

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

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
	before, err := flatten(old)
	if err != nil {
		return nil, err
	}
	after, err := flatten(now)
	if err != nil {
		return nil, err
	}
	fields := maps.Clone(before)
	maps.Copy(fields, after)
	var lines []string
	for _, field := range slices.SortedFunc(maps.Keys(fields), compareFields) {
		was, had := before[field]
		is, has := after[field]
		if had && has && was == is {
			continue
		}
		if had {
			lines = append(lines, "- "+field+": "+was)
		}
		if has {
			lines = append(lines, "+ "+field+": "+is)
		}
	}
	return lines, nil
}

// flatten lists the fields of a service's spec by their paths.
func flatten(s *api.Service) (map[string]string, error) {
	out := make(map[string]string)
	if s == nil {
		return out, nil
	}
	raw, err := json.Marshal(s.Spec)
	if err != nil {
		return nil, fmt.Errorf("compare service %s: %w", s.Metadata.Name, err)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("compare service %s: %w", s.Metadata.Name, err)
	}
	walk("spec", tree, out)
	return out, nil
}

func walk(path string, node any, out map[string]string) {
	switch n := node.(type) {
	case map[string]any:
		for k, v := range n {
			walk(path+"."+k, v, out)
		}
	case []any:
		for i, v := range n {
			walk(path+"["+strconv.Itoa(i)+"]", v, out)
		}
	case nil:
	default:
		out[path] = fmt.Sprint(n)
	}
}

// compareFields orders paths so that [10] comes after [9].
func compareFields(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if na >= 0 && nb >= 0 {
			if na != nb {
				return na - nb
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// leadingNumber returns the number that s begins with, and the rest; -1
// without one.
func leadingNumber(s string) (int, string) {
	i := 0
	for i < len(s) && i < 9 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, err := strconv.Atoi(s[:i])
	if err != nil {
		return -1, s
	}
	return n, s[i:]
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

// keep is the one policy for open connections at a rollback so far.
const keep = "keep"

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
