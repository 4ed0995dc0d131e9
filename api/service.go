package api

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"
)

// document reads one document, as far as it can be read.
func (r *reader) document(n ast.Node) *Document {
	kind, at, ok := r.header(n)
	if !ok {
		return nil
	}
	switch kind {
	case KindService:
		return &Document{Service: r.service(n), origin: r}
	case KindRelease:
		return &Document{Release: r.release(n), origin: r}
	default:
		r.fail(at, "kind", "%q is not known: the kinds are %s and %s", kind, KindService, KindRelease)
	}
	return nil
}

// header reads what tells how to read the rest. It stands by itself since a
// file may hold the fields in any order.
func (r *reader) header(n ast.Node) (kind string, at ast.Node, ok bool) {
	entries, ok := r.entries(n, "")
	if !ok {
		return "", nil, false
	}
	version := ""
	for _, e := range entries {
		switch k, _ := e.Key.(*ast.StringNode); {
		case k == nil:
		case k.Value == "kind":
			r.mark(k, "kind")
			kind, ok = r.text(e.Value, "kind")
			at = e.Value
		case k.Value == "apiVersion":
			if version, _ = r.text(e.Value, "apiVersion"); version != APIVersion && version != "" {
				r.fail(e.Value, "apiVersion", "%q is not known: write %s", version, APIVersion)
			}
		case k.Value == "metadata":
			if name := nameIn(e.Value); name != "" {
				r.subject = name
			}
		}
	}
	if at == nil {
		r.fail(n, "kind", "is missing: write kind: %s or %s", KindService, KindRelease)
		return "", nil, false
	}
	r.subject = objectOf(kind, r.subject)
	return kind, at, ok
}

// nameIn finds metadata.name without complaint; the reader of the kind
// complains.
func nameIn(n ast.Node) string {
	if m, ok := n.(*ast.MappingNode); ok {
		for _, e := range m.Values {
			k, _ := e.Key.(*ast.StringNode)
			if v, _ := e.Value.(*ast.StringNode); k != nil && v != nil && k.Value == "name" {
				return v.Value
			}
		}
	}
	return ""
}

// object reads what every document has, and its spec.
func (r *reader) object(n ast.Node, to *Metadata, spec func(ast.Node, string)) {
	seen := func(ast.Node, string) {} // the header has read it
	r.fields(n, "",
		field{"apiVersion", true, seen},
		field{"kind", true, seen},
		field{"metadata", true, func(n ast.Node, path string) {
			r.fields(n, path, field{"name", true, func(n ast.Node, path string) { to.Name, _ = r.text(n, path) }})
		}},
		field{"spec", true, spec},
	)
}

func (r *reader) service(n ast.Node) *Service {
	s := &Service{APIVersion: APIVersion, Kind: KindService}
	s.Spec = ServiceSpec{Affinity: "client", SourceNAT: "auto", Observe: "auto", ConnectionsOnRollback: "keep"}
	r.object(n, &s.Metadata, func(n ast.Node, path string) { r.spec(n, path, &s.Spec) })
	return s
}

func (r *reader) spec(n ast.Node, path string, s *ServiceSpec) {
	r.fields(n, path,
		field{"frontends", true, func(n ast.Node, path string) {
			r.list(n, path, func(n ast.Node, path string) { s.Frontends = append(s.Frontends, r.frontend(n, path)) })
		}},
		field{"affinity", false, func(n ast.Node, path string) { r.oneOf(n, path, &s.Affinity, "client", "connection") }},
		field{"sourceNAT", false, func(n ast.Node, path string) { r.oneOf(n, path, &s.SourceNAT, "auto", "always", "never") }},
		field{"observe", false, func(n ast.Node, path string) {
			r.oneOf(n, path, &s.Observe, "auto", "requests", "connections")
		}},
		field{"connectionsOnRollback", false, func(n ast.Node, path string) {
			r.oneOf(n, path, &s.ConnectionsOnRollback, "keep", "drain", "reset")
		}},
		field{"versions", true, func(n ast.Node, path string) {
			s.Versions = map[string]VersionSpec{}
			r.names(n, path, func(name string, n ast.Node, path string) { s.Versions[name] = r.version(n, path) })
		}},
		field{"weights", false, func(n ast.Node, path string) {
			s.Weights = map[string]Share{}
			r.names(n, path, func(name string, n ast.Node, path string) { s.Weights[name] = r.share(n, path) })
		}},
		field{"healthCheck", false, func(n ast.Node, path string) { s.HealthCheck = r.healthCheck(n, path) }},
	)
}

// frontend returns the zero Frontend where it cannot be read, so that the
// others keep their places in the list.
func (r *reader) frontend(n ast.Node, path string) Frontend {
	s, ok := r.text(n, path)
	if !ok {
		return Frontend{}
	}
	f, err := ParseFrontend(s)
	if err != nil {
		r.fail(n, path, "%v", err)
	}
	return f
}

func (r *reader) version(n ast.Node, path string) VersionSpec {
	var v VersionSpec
	r.fields(n, path, field{"backends", true, func(n ast.Node, path string) {
		r.list(n, path, func(n ast.Node, path string) { v.Backends = append(v.Backends, r.backend(n, path)) })
	}})
	return v
}

// backend reads "ip:port" or {address, weight}; like frontend it keeps its
// place.
func (r *reader) backend(n ast.Node, path string) Backend {
	b := Backend{Weight: 1}
	address := func(n ast.Node, path string) {
		s, ok := r.text(n, path)
		if !ok {
			return
		}
		var err error
		if b.Address, err = ParseAddress(s); err != nil {
			r.fail(n, path, "%v", err)
		}
	}
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		r.fields(n, path,
			field{"address", true, address},
			field{"weight", false, func(n ast.Node, path string) {
				if w, ok := r.integer(n, path, 0, 1_000_000); ok {
					b.Weight = uint32(w)
				}
			}},
		)
	default:
		address(n, path)
	}
	return b
}

func (r *reader) share(n ast.Node, path string) Share {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		_, err := ParseShare(n.GetToken().Value)
		if err == nil {
			err = fmt.Errorf("write it with a percent sign")
		}
		r.fail(n, path, "%v", err)
		return 0
	}
	s, ok := r.text(n, path)
	if !ok {
		return 0
	}
	v, err := ParseShare(s)
	if err != nil {
		r.fail(n, path, "%v", err)
	}
	return v
}
