package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Merged is what an apply makes of a service that has gone its own way since
// the last one.
type Merged struct {
	Service  *Service
	Diff     []string // from what is live
	Warnings []string // "spec.versions.stable: …"
}

// Merge applies a service's document three ways, field by field: what the
// document changed since it was applied last is taken from it; what it did not
// change stays as it is live. So applying the same document again does not undo
// a promotion, which made stable's backends those of the new version; only a
// change of the version itself does, and is warned of. applied or live may be
// nil: the document is then taken as it is.
func Merge(applied, live, document *Service) (Merged, error) {
	out := Merged{Service: document}
	if applied != nil && live != nil {
		merged, err := out.merge(applied, live, document)
		if err != nil {
			return Merged{}, fmt.Errorf("merge service %s: %w", document.Metadata.Name, err)
		}
		out.Service = merged
	}
	var before any
	if live != nil {
		before = live.Spec
	}
	var err error
	out.Diff, err = Diff(before, out.Service.Spec)
	return out, err
}

func (m *Merged) merge(applied, live, document *Service) (*Service, error) {
	var trees [3]any
	for i, s := range []*Service{applied, live, document} {
		var err error
		if trees[i], err = tree(s.Spec); err != nil {
			return nil, err
		}
	}
	spec, _ := m.field("spec", trees[0], trees[1], trees[2])
	raw, err := json.Marshal(map[string]any{"apiVersion": APIVersion, "kind": KindService, "metadata": document.Metadata, "spec": spec})
	if err != nil {
		return nil, err
	}
	docs, err := Parse("merged", raw)
	if err != nil {
		return nil, err
	}
	return docs[0].Service, nil
}

// field merges one field; absent ones are nil. It returns the value, and
// whether there is one.
func (m *Merged) field(path string, applied, live, document any) (any, bool) {
	a, aMap := applied.(map[string]any)
	l, lMap := live.(map[string]any)
	d, dMap := document.(map[string]any)
	// A backend and a list of them are one thing: half of each is neither.
	if dMap && lMap && (aMap || applied == nil) {
		out := map[string]any{}
		keys := maps.Clone(a)
		if keys == nil {
			keys = map[string]any{}
		}
		maps.Copy(keys, l)
		maps.Copy(keys, d)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			if v, ok := m.field(path+"."+k, a[k], l[k], d[k]); ok {
				out[k] = v
			}
		}
		return out, true
	}
	if reflect.DeepEqual(document, applied) {
		return live, live != nil
	}
	if !reflect.DeepEqual(live, applied) && !reflect.DeepEqual(live, document) {
		m.Warnings = append(m.Warnings, undoes(path, live, document))
	}
	return document, document != nil
}

// undoes says what of a promotion a document takes back.
func undoes(path string, live, document any) string {
	field := strings.TrimSuffix(path, ".backends")
	if document == nil {
		return fmt.Sprintf("%s: is removed by this document; it was promoted to %s", field, text(live))
	}
	return fmt.Sprintf("%s: was promoted to %s, and this document now makes it %s", field, text(live), text(document))
}

// text writes a value in one line.
func text(v any) string {
	raw, err := json.Marshal(v)
	if err != nil || v == nil {
		return "nothing"
	}
	return string(raw)
}
