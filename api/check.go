package api

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"siskin.dev/siskin/steering"
)

// A Source is a file, or what stands for one.
type Source struct {
	Name string // as the messages shall call it
	Data []byte
}

// Read parses the sources and checks their documents together. The error is
// Problems, with everything that is wrong in any of them; there are documents
// only when there is none, so that nothing of a bad set is ever used.
func Read(sources ...Source) ([]Document, error) {
	var docs []Document
	var problems Problems
	for _, s := range sources {
		found, err := Parse(s.Name, s.Data)
		docs = append(docs, found...)
		var ps Problems
		if errors.As(err, &ps) {
			problems = append(problems, ps...)
		}
	}
	problems = append(problems, check(docs)...)
	if len(problems) > 0 {
		return nil, inOrder(problems, sources)
	}
	return docs, nil
}

// inOrder sorts problems as a reader of the files meets them.
func inOrder(ps Problems, sources []Source) Problems {
	rank := map[string]int{}
	for i, s := range sources {
		rank[s.Name] = i
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.File != b.File {
			return rank[a.File] - rank[b.File]
		}
		return (a.Line-b.Line)*1000 + a.Column - b.Column
	})
	return ps
}

// check finds what is wrong between fields and between documents. A field
// that could not be read is not complained about again, nor is what follows
// from it.
func check(docs []Document) Problems {
	var problems Problems
	var services []steering.Service
	byName := map[string]Document{}
	for _, d := range docs {
		if first, ok := byName[d.Object()]; ok && d.Name() != "" {
			at, _ := first.Locate("metadata.name")
			problems = append(problems, d.problem("metadata.name",
				fmt.Sprintf("%s stands at %s:%d already: give one of them another name", d.Name(), at.File, at.Line)))
			continue
		}
		byName[d.Object()] = d
		if d.Service != nil {
			services = append(services, d.Service.Steering())
		}
	}
	faults, _ := fieldErrors(steering.Validate(services))
	for _, f := range faults {
		if d := byName[objectOf(KindService, f.Service)]; !d.suspect(f) {
			problems = append(problems, d.problem(f.Field, f.Problem))
		}
	}
	for _, d := range docs {
		if d.Release == nil {
			continue
		}
		for _, f := range append(d.Release.faults(), d.Release.misfits(Services(docs))...) {
			if !d.suspect(&f) {
				problems = append(problems, d.problem(f.Field, f.Problem))
			}
		}
	}
	return problems
}

// problem makes a Problem of a field of the document.
func (d Document) problem(field, text string) Problem {
	at, line := d.Locate(field)
	return Problem{Place: at, Object: objectOf(d.Kind(), d.Name()), Field: field, Problem: text, Excerpt: line}
}

// suspect tells whether a fault may only follow from what the reader has
// reported already: at the same place, above or below it; in the versions,
// what has to do with frontends, when not all of those could be read; and in
// the weights, when not all versions could be.
func (d Document) suspect(f *steering.FieldError) bool {
	if d.origin == nil {
		return false
	}
	const frontends, versions, weights = "spec.frontends", "spec.versions", "spec.weights"
	return slices.ContainsFunc(d.origin.problems, func(p Problem) bool {
		return within(f.Field, p.Field) || within(p.Field, f.Field) ||
			within(f.Field, versions) && within(p.Field, frontends) && strings.Contains(f.Problem, "frontend") ||
			within(f.Field, weights) && within(p.Field, versions)
	})
}

// within tells whether a field path is the other one or lies below it.
func within(field, above string) bool {
	rest, ok := strings.CutPrefix(field, above)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[' || above == "")
}

// Explain gives problems of a daemon's answer the places that they have in
// the documents that were sent.
func Explain(docs []Document, problems Problems) Problems {
	out := slices.Clone(problems)
	for i, p := range out {
		for _, d := range docs {
			if p.Object == objectOf(d.Kind(), d.Name()) {
				out[i].Place, out[i].Excerpt = d.Locate(p.Field)
			}
		}
	}
	return out
}

// Warnings says what in a set of documents is accepted but does not do what a
// reader may think. They are Problems in form only.
func Warnings(docs []Document) []Problem {
	frontends := map[netip.AddrPort]string{}
	for _, s := range Services(docs) {
		for _, f := range s.Spec.Frontends {
			frontends[f.Addr] = s.Metadata.Name
		}
	}
	var out []Problem
	for _, d := range docs {
		if d.Release != nil {
			for _, w := range d.Release.doubts(Services(docs)) {
				out = append(out, d.problem(w.Field, w.Problem))
			}
			continue
		}
		spec := d.Service.Spec
		if p := spec.uncheckable(); p != "" {
			out = append(out, d.problem("spec.healthCheck", p))
		}
		if len(spec.Versions) > 3 && spec.Affinity == "client" {
			out = append(out, d.problem("spec.versions",
				"with more than two versions beside stable, a change of one weight can also move clients between the others"))
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Versions)) {
			for i, b := range spec.Versions[name].Backends {
				if p := leadsOn(d.Name(), name, frontends[b.Address]); p != "" {
					out = append(out, d.problem(fmt.Sprintf("spec.versions.%s.backends[%d]", name, i), b.Address.String()+" "+p))
				}
			}
		}
	}
	return out
}

// leadsOn says why a backend whose address is a frontend of owner ("": of no
// service) may surprise.
func leadsOn(service, version, owner string) string {
	switch {
	case owner == "" || owner == service && version == steering.Stable:
		return "" // taking a share away from a running server is a way to use siskin
	case owner == service:
		return "is also a frontend of this service: connections made straight to it are shared out, too"
	}
	return "is a frontend of service " + owner + ": a connection is steered once only; name the backends of " + owner + " instead"
}

// Warnings says what in the document is accepted but does not do what a
// reader may think.
func (d Document) Warnings() []string {
	var out []string
	for _, w := range Warnings([]Document{d}) {
		out = append(out, w.Field+": "+w.Problem)
	}
	return out
}
