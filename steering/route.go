package steering

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"siskin.dev/siskin/bpf"
)

// A route says where a service's weights are: its word, and the slots of its
// versions beside stable. It is never changed, only replaced.
type route struct {
	word  uint32
	slots map[string]uint8
}

func (t *route) shares(w Word) map[string]Share {
	out := map[string]Share{Stable: w.Share(0)}
	for name, slot := range t.slots {
		out[name] = w.Share(slot)
	}
	return out
}

// merge returns the word that follows w when the named versions change.
func (t *route) merge(w Word, set map[string]Share) (Word, error) {
	shares := w.Shares()
	for name, share := range set {
		slot, ok := t.slots[name]
		switch {
		case name == Stable:
			return w, fmt.Errorf("%s gets what the other versions leave; set those", Stable)
		case !ok:
			return w, fmt.Errorf("%w: %s; it has %s", ErrNoVersion, name,
				strings.Join(append(slices.Sorted(maps.Keys(t.slots)), Stable), ", "))
		case share > Whole:
			return w, fmt.Errorf("version %s: %s: %w", name, share, ErrOverWhole)
		}
		shares[slot-1] = share
	}
	return w.Next(shares)
}

// routeOf reads a route from a service's entry; live are the versions that
// take connections.
func routeOf(rec bpf.ServiceName, live map[uint32]bool) *route {
	t := &route{word: rec.Word, slots: map[string]uint8{}}
	for slot := 1; slot < slots; slot++ {
		if name := bpf.Text(rec.Versions[slot][:]); name != "" && live[rec.Latency[slot]] {
			t.slots[name] = uint8(slot)
		}
	}
	return t
}

// routes are those of all services that take connections.
type routes struct {
	byName map[string]*route
	byWord map[uint32]map[string]bool // names
}

func newRoutes() *routes {
	return &routes{byName: map[string]*route{}, byWord: map[uint32]map[string]bool{}}
}

func (r *routes) set(service string, t *route) {
	r.drop(service)
	r.byName[service] = t
	note(r.byWord, t.word, service)
}

func (r *routes) drop(service string) {
	if old := r.byName[service]; old != nil {
		delete(r.byWord[old.word], service)
		delete(r.byName, service)
	}
}

// others reports whether another service has the version in the same word. An
// empty version asks for any service.
func (r *routes) others(service string, word uint32, version string) bool {
	for name := range r.byWord[word] {
		if name == service {
			continue
		}
		if _, ok := r.byName[name].slots[version]; ok || version == "" {
			return true
		}
	}
	return false
}

// held tells which slots of a word are some service's version.
func (r *routes) held(word uint32) (out [slots]bool) {
	for name := range r.byWord[word] {
		for _, slot := range r.byName[name].slots {
			out[slot] = true
		}
	}
	return out
}
