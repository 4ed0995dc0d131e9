package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

func (s *Server) release(r *http.Request) (any, error) {
	return s.o.Control.Release(r.Context(), r.PathValue("name"))
}

// PromoteRequest is what POST …/promote may carry.
type PromoteRequest struct {
	Full bool `json:"full,omitempty"` // past all steps that are left
}

func (s *Server) drive(r *http.Request) (any, error) {
	name, verb := r.PathValue("name"), r.PathValue("verb")
	if !slices.Contains(ReleaseVerbs(), verb) {
		return nil, fmt.Errorf("%w: %q is nothing that a release can do: there are %s", ErrNotFound, verb, strings.Join(ReleaseVerbs(), ", "))
	}
	var in PromoteRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Full && verb != VerbPromote {
		return nil, fmt.Errorf("%w: full belongs to promote, not to %s", ErrInvalid, verb)
	}
	return s.o.Control.DriveRelease(r.Context(), name, verb, in.Full)
}

func (s *Server) report(r *http.Request) (any, error) {
	var in Outcomes
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.Success == 0 && in.Failure == 0 {
		return nil, fmt.Errorf(`%w: the report counts nothing: send {"success": 120, "failure": 3}`, ErrInvalid)
	}
	return struct{}{}, s.o.Control.Report(r.Context(), r.PathValue("name"), r.PathValue("version"), in)
}
