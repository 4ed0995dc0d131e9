package api

import (
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Failures are the answers that count as errors of the server: HTTP statuses
// ("503") and classes of them ("5xx"), and gRPC codes by their names. Errors of
// connections always count.
type Failures struct {
	HTTP []string `json:"http"`
	GRPC []string `json:"grpc"`
}

// grpcCodes are the names of gRPC's status codes, by number
// (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
var grpcCodes = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// defaultFailures are the server's: 5xx, and the codes that OpenTelemetry's
// conventions count as errors of a server.
func defaultFailures() Failures {
	return Failures{
		HTTP: []string{"5xx"},
		GRPC: []string{"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"},
	}
}

// Statuses are the HTTP statuses that count as errors, in their order.
func (f Failures) Statuses() []int {
	var all []int
	for _, s := range f.HTTP {
		if class, ok := strings.CutSuffix(s, "xx"); ok {
			first, _ := strconv.Atoi(class)
			for n := range 100 {
				all = append(all, 100*first+n)
			}
		} else if n, err := strconv.Atoi(s); err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Codes are the gRPC codes that count as errors, in their order.
func (f Failures) Codes() []int {
	var all []int
	for _, name := range f.GRPC {
		if n := slices.Index(grpcCodes, name); n > 0 {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (r *reader) failures(n ast.Node, path string, to *Failures) {
	r.fields(n, path,
		field{"http", false, func(n ast.Node, path string) {
			to.HTTP = []string{}
			r.list(n, path, func(n ast.Node, path string) {
				if s, ok := r.failingStatus(n, path); ok {
					to.HTTP = append(to.HTTP, s)
				}
			})
		}},
		field{"grpc", false, func(n ast.Node, path string) {
			to.GRPC = []string{}
			r.list(n, path, func(n ast.Node, path string) {
				var s string
				if r.oneOf(n, path, &s, grpcCodes[1:]...); s != "" {
					to.GRPC = append(to.GRPC, s)
				}
			})
		}},
	)
}

// failingStatus reads 503, "503" or 5xx.
func (r *reader) failingStatus(n ast.Node, path string) (string, bool) {
	if _, ok := n.(*ast.IntegerNode); ok {
		v, ok := r.integer(n, path, 400, 599)
		return strconv.FormatUint(v, 10), ok
	}
	s, ok := r.text(n, path)
	if !ok {
		return "", false
	}
	v, err := strconv.Atoi(s)
	if s == "4xx" || s == "5xx" || err == nil && v >= 400 && v <= 599 {
		return s, true
	}
	r.fail(n, path, "%q is no failure of HTTP: write 5xx, 4xx or a status from 400 to 599", s)
	return "", false
}
