package steering

import (
	"errors"
	"fmt"
)

// ErrFull says that a map has no room for what is desired.
var ErrFull = errors.New("map is full")

// An idSource hands out the ids of one map: always the next one after the
// last, and from the lowest again at the map's end. So an id rests for as long
// as possible before something else has it.
type idSource struct {
	what  string // for the error: what the ids are of
	limit uint32 // entries of the map
	last  uint32
}

// take returns an id in [1, limit) that is not used.
func (s *idSource) take(used func(uint32) bool) (uint32, error) {
	for i := uint32(1); i < s.limit; i++ {
		id := 1 + (s.last-1+i)%(s.limit-1)
		if !used(id) {
			s.last = id
			return id, nil
		}
	}
	return 0, fmt.Errorf("no room for another of %d %s: %w; delete something, or start the daemon with larger maps", s.limit, s.what, ErrFull)
}

// ids are the sources of every kind of id.
type ids struct {
	services, frontends, backends, versions, words idSource
}

// newIDs returns sources that go on after the highest id in use.
func newIDs(l Limits, s *state) *ids {
	out := &ids{
		services:  idSource{what: "services", limit: l.Services},
		frontends: idSource{what: "frontends", limit: l.Frontends},
		backends:  idSource{what: "backends", limit: l.Backends},
		versions:  idSource{what: "versions", limit: l.Versions},
		words:     idSource{what: "weight words", limit: l.Words},
	}
	for id, rec := range s.services {
		out.services.last = max(out.services.last, id)
		out.words.last = max(out.words.last, rec.Word)
		for _, v := range rec.Latency {
			out.versions.last = max(out.versions.last, v)
		}
	}
	for id := range s.vips {
		out.frontends.last = max(out.frontends.last, id)
	}
	for id, b := range s.backends {
		out.backends.last = max(out.backends.last, id, b.Endpoint)
		out.versions.last = max(out.versions.last, b.Version)
	}
	for _, f := range s.frontends {
		out.words.last = max(out.words.last, f.Word)
		out.frontends.last = max(out.frontends.last, f.Id)
	}
	return out
}
