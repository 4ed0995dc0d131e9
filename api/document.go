// Package api is what users and tools talk to: the documents, the views and
// the HTTP API on the Unix socket, with its client.
package api

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"siskin.dev/siskin/steering"
)

// APIVersion is the one version of the documents.
const APIVersion = "siskin.dev/v1alpha1"

// Kinds of documents.
const (
	KindService = "Service"
	KindRelease = "Release"
)

// Document is one object of a file, parsed, with its defaults filled in and
// checked in itself. It is written as JSON in the shape it has in a file, and
// Parse reads that again. One of Service and Release is set.
type Document struct {
	Service *Service
	Release *Release

	origin *reader // where it was read from; nil: nowhere
}

// Kind is the document's kind.
func (d Document) Kind() string {
	if d.Release != nil {
		return KindRelease
	}
	return KindService
}

// Name is the object's name.
func (d Document) Name() string {
	if d.Release != nil {
		return d.Release.Metadata.Name
	}
	return d.Service.Metadata.Name
}

// Object is the document's kind and name, as views and events name it:
// "service/checkout".
func (d Document) Object() string { return objectOf(d.Kind(), d.Name()) }

// MarshalJSON writes the object itself.
func (d Document) MarshalJSON() ([]byte, error) {
	if d.Release != nil {
		return json.Marshal(d.Release)
	}
	return json.Marshal(d.Service)
}

// Services are the services among documents.
func Services(docs []Document) []*Service {
	var out []*Service
	for _, d := range docs {
		if d.Service != nil {
			out = append(out, d.Service)
		}
	}
	return out
}

// Releases are the releases among documents.
func Releases(docs []Document) []*Release {
	var out []*Release
	for _, d := range docs {
		if d.Release != nil {
			out = append(out, d.Release)
		}
	}
	return out
}

// Locate returns where a field stands in the file, or the nearest field above
// it, with the line itself; the zero Place where the file is not known.
func (d Document) Locate(field string) (at Place, line string) {
	if d.origin == nil {
		return Place{}, ""
	}
	for field != "" {
		if at, ok := d.origin.places[field]; ok {
			return at, excerpt(d.origin.line(at.Line-d.origin.first+1), at.Column)
		}
		field = parent(field)
	}
	return Place{File: d.origin.file, Line: d.origin.first, Column: 1}, ""
}

// parent cuts the last step off a field path.
func parent(field string) string { return field[:max(0, strings.LastIndexAny(field, ".["))] }

// Service is a document of kind Service.
type Service struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata"`
	Spec       ServiceSpec `json:"spec"`
}

// Metadata names an object.
type Metadata struct {
	Name string `json:"name"` // a DNS label
}

// ServiceSpec is what a service shall be.
type ServiceSpec struct {
	Frontends             []Frontend             `json:"frontends"`
	Affinity              string                 `json:"affinity"`              // client, connection
	SourceNAT             string                 `json:"sourceNAT"`             // auto, always, never
	Observe               string                 `json:"observe"`               // auto, requests, connections
	ConnectionsOnRollback string                 `json:"connectionsOnRollback"` // keep, drain, reset
	Versions              map[string]VersionSpec `json:"versions"`
	Weights               map[string]Share       `json:"weights,omitempty"` // at the start; stable gets the rest
	HealthCheck           *HealthCheck           `json:"healthCheck,omitempty"`
}

// VersionSpec is one version of a service.
type VersionSpec struct {
	Backends []Backend `json:"backends"`
}

// HealthCheck says how backends are probed. Exactly one of HTTP, TCP, GRPC
// and Exec is set.
type HealthCheck struct {
	HTTP     *HTTPCheck `json:"http,omitempty"`
	TCP      *struct{}  `json:"tcp,omitempty"`
	GRPC     *GRPCCheck `json:"grpc,omitempty"`
	Exec     *ExecCheck `json:"exec,omitempty"`
	Interval Duration   `json:"interval"`
	Timeout  Duration   `json:"timeout"`
	Rise     int        `json:"rise"` // successes that make it healthy
	Fall     int        `json:"fall"` // failures that make it unhealthy
	Startup  *Startup   `json:"startup,omitempty"`
}

// HTTPCheck asks for a path and looks at the status.
type HTTPCheck struct {
	Path   string `json:"path"`
	Host   string `json:"host,omitempty"` // of the request; "": the backend's address
	Expect string `json:"expect"`         // "200", "200-299", "200,204"
}

// GRPCCheck asks the gRPC health service.
type GRPCCheck struct {
	Service string `json:"service"`
}

// ExecCheck runs a command; exit status 0 is healthy.
type ExecCheck struct {
	Command []string `json:"command"`
}

// Startup gives a new backend time before Fall counts.
type Startup struct {
	FailureThreshold int      `json:"failureThreshold"`
	Interval         Duration `json:"interval"`
}

// Duration is written as Go writes it: "500ms".
type Duration time.Duration

// MarshalText writes the duration as the documents do.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Share is a steering.Share that is written as the documents do: "5%".
type Share steering.Share

func (s Share) String() string { return steering.Share(s).String() }

// MarshalText writes the share as the documents do.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote, by the rules of ParseShare.
func (s *Share) UnmarshalText(b []byte) error {
	v, err := ParseShare(string(b))
	*s = v
	return err
}

// Frontend is a steering.Frontend that is written as "198.18.0.10:80/tcp".
type Frontend steering.Frontend

func (f Frontend) String() string { return steering.Frontend(f).String() }

// MarshalText writes the frontend as the documents do.
func (f Frontend) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote, by the rules of ParseFrontend.
func (f *Frontend) UnmarshalText(b []byte) error {
	v, err := ParseFrontend(string(b))
	*f = v
	return err
}

// Backend is an address of a version and its weight relative to the others.
type Backend struct {
	Address netip.AddrPort
	Weight  uint32
}

// MarshalJSON writes the short form where the weight is 1.
func (b Backend) MarshalJSON() ([]byte, error) {
	if b.Weight == 1 {
		return json.Marshal(b.Address)
	}
	return json.Marshal(struct {
		Address netip.AddrPort `json:"address"`
		Weight  uint32         `json:"weight"`
	}{b.Address, b.Weight})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (b *Backend) UnmarshalJSON(raw []byte) error {
	var long struct {
		Address netip.AddrPort `json:"address"`
		Weight  uint32         `json:"weight"`
	}
	if err := json.Unmarshal(raw, &long); err == nil {
		*b = Backend{long.Address, long.Weight}
		return nil
	}
	var short netip.AddrPort
	if err := json.Unmarshal(raw, &short); err != nil {
		return err
	}
	*b = Backend{short, 1}
	return nil
}

// Steering returns the service as the reconciler wants it: stable first, the
// other versions by name, every backend active.
func (s *Service) Steering() steering.Service {
	out := steering.Service{Name: s.Metadata.Name, Weights: map[string]steering.Share{}}
	for _, f := range s.Spec.Frontends {
		out.Frontends = append(out.Frontends, steering.Frontend(f))
	}
	if s.Spec.Affinity == "connection" {
		out.Affinity = steering.ByConnection
	}
	switch s.Spec.SourceNAT {
	case "always":
		out.SourceNAT = steering.Always
	case "never":
		out.SourceNAT = steering.Never
	}
	switch s.Spec.Observe {
	case "requests":
		out.Observe = steering.Requests
	case "connections":
		out.Observe = steering.Connections
	}
	for _, name := range versionNames(s.Spec.Versions) {
		v := steering.Version{Name: name}
		for _, b := range s.Spec.Versions[name].Backends {
			v.Backends = append(v.Backends, steering.Backend{Addr: b.Address, Weight: b.Weight})
		}
		out.Versions = append(out.Versions, v)
	}
	for name, w := range s.Spec.Weights {
		out.Weights[name] = steering.Share(w)
	}
	return out
}
