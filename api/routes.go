package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"siskin.dev/siskin/steering"
)

// listed writes an empty list as [] and not as null.
func listed[T any](list []T, err error) ([]T, error) {
	if list == nil {
		list = []T{}
	}
	return list, err
}

// flagged tells whether a query parameter is set.
func flagged(r *http.Request, name string) bool {
	v, err := strconv.ParseBool(r.URL.Query().Get(name))
	return err == nil && v
}

// body reads a request's body within bounds.
func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxSource+1))
	if err != nil {
		return nil, fmt.Errorf("%w: read the request: %w", ErrInvalid, err)
	}
	if len(b) > maxSource {
		return nil, fmt.Errorf("%w: the request is larger than %d MiB: send the documents in several", ErrInvalid, maxSource>>20)
	}
	return b, nil
}

// decode reads a JSON body whose fields are all known.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, maxSource))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: read the request: %w", ErrInvalid, err)
	}
	return nil
}

func (s *Server) find(r *http.Request) (ServiceView, error) {
	name := r.PathValue("name")
	services, err := s.o.Control.Services(r.Context())
	if err != nil {
		return ServiceView{}, err
	}
	i := slices.IndexFunc(services, func(v ServiceView) bool { return v.Name == name })
	if i < 0 {
		return ServiceView{}, fmt.Errorf("there is no service %q: %w; siskin get services lists them", name, ErrNotFound)
	}
	return services[i], nil
}

func (s *Server) service(r *http.Request) (any, error) { return s.find(r) }

// Weights is what GET and PUT …/weights carry.
type Weights struct {
	Weights map[string]Share `json:"weights"`
}

func (s *Server) weights(r *http.Request) (any, error) {
	v, err := s.find(r)
	out := Weights{Weights: map[string]Share{}}
	for _, version := range v.Versions {
		out.Weights[version.Name] = version.Weight
	}
	return out, err
}

func (s *Server) setWeights(r *http.Request) (any, error) {
	var in Weights
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if len(in.Weights) == 0 {
		return nil, fmt.Errorf(`%w: the request names no version: send {"weights": {"canary": "5%%"}}`, ErrInvalid)
	}
	shares := map[string]steering.Share{}
	for name, share := range in.Weights {
		shares[name] = steering.Share(share)
	}
	return s.o.Control.SetWeights(r.Context(), r.PathValue("name"), shares)
}

// RollbackRequest is what POST /rollback carries: names, or all.
type RollbackRequest struct {
	Services []string `json:"services,omitempty"`
	All      bool     `json:"all,omitempty"`
}

func (s *Server) rollback(r *http.Request) (any, error) {
	var in RollbackRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if in.All == (len(in.Services) > 0) {
		return nil, fmt.Errorf(`%w: send either {"services": ["checkout"]} or {"all": true}`, ErrInvalid)
	}
	result, err := s.o.Control.Rollback(r.Context(), in.Services, in.All)
	if err != nil && len(result.Services) > 0 {
		done := make([]string, len(result.Services))
		for i, rb := range result.Services {
			done[i] = rb.Service
		}
		err = fmt.Errorf("%w; rolled back all the same: %s", err, strings.Join(done, ", "))
	}
	return result, err
}

func (s *Server) apply(r *http.Request) (any, error) {
	docs, err := sent(r)
	if err != nil {
		return nil, err
	}
	return s.applied(r, docs)
}

// put applies the one document of the request's path.
func (s *Server) put(r *http.Request, kind string) (any, error) {
	docs, err := sent(r)
	if err != nil {
		return nil, err
	}
	if name := r.PathValue("name"); len(docs) != 1 || docs[0].Kind() != kind || docs[0].Name() != name {
		return nil, fmt.Errorf("%w: send exactly the document of %s %s to this path, or several to %s/apply", ErrInvalid, strings.ToLower(kind), name, Prefix)
	}
	return s.applied(r, docs)
}

// sent reads the documents in a request.
func sent(r *http.Request) ([]Document, error) {
	b, err := body(r)
	if err != nil {
		return nil, err
	}
	return Read(Source{Name: "request", Data: b})
}

func (s *Server) applied(r *http.Request, docs []Document) (any, error) {
	if err := s.who.mayRun(peerIn(r), docs); err != nil {
		return nil, err
	}
	result, err := s.o.Control.Apply(r.Context(), docs, flagged(r, "dryRun"))
	for _, w := range Warnings(docs) {
		result.warn(w)
	}
	return result, err
}

// warn adds a warning to the object that it is about, unless it is there.
func (a *ApplyResult) warn(w Problem) {
	text := w.Field + ": " + w.Problem
	for i, o := range a.Objects {
		if objectOf(o.Kind, o.Name) == w.Object && !slices.Contains(o.Warnings, text) {
			a.Objects[i].Warnings = append(o.Warnings, text)
		}
	}
}

// flowLimit bounds what one request returns, for a table may hold millions.
const flowLimit = 100_000

func (s *Server) flows(r *http.Request) (any, error) {
	q := r.URL.Query()
	limit := 1000
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > flowLimit {
			return nil, fmt.Errorf("%w: limit %q is not a number from 1 to %d", ErrInvalid, v, flowLimit)
		}
		limit = n
	}
	list, err := s.o.Control.Flows(r.Context(), FlowFilter{
		Service: q.Get("service"), Version: q.Get("version"), Backend: q.Get("backend"),
		Client: q.Get("client"), State: q.Get("state"),
	}, limit)
	list.Flows, err = listed(list.Flows, err)
	return list, err
}
