package api

import (
	"errors"
	"fmt"
	"strings"

	"siskin.dev/siskin/steering"
)

// A Place is a position in a file; lines and columns count from 1.
type Place struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// A Problem is one thing that is wrong with a document.
type Problem struct {
	Place
	Object  string `json:"object,omitempty"` // "service/checkout"
	Field   string `json:"field,omitempty"`  // "spec.versions.canary.backends[1]"
	Problem string `json:"problem"`          // what is wrong, and what to do
	Excerpt string `json:"excerpt,omitempty"`
}

// String writes the problem in one line:
//
//	FILE:LINE:COLUMN: FIELD: what is wrong, what to do | the line itself
func (p Problem) String() string {
	var b strings.Builder
	switch {
	case p.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	case p.Object != "":
		fmt.Fprintf(&b, "%s: ", p.Object)
	case p.File != "":
		fmt.Fprintf(&b, "%s: ", p.File)
	}
	if p.Field != "" {
		fmt.Fprintf(&b, "%s: ", p.Field)
	}
	b.WriteString(p.Problem)
	if p.Excerpt != "" {
		fmt.Fprintf(&b, " | %s", p.Excerpt)
	}
	return b.String()
}

// Problems is everything that is wrong with a set of documents, as an error
// that wraps ErrInvalid.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (ps Problems) Unwrap() error { return ErrInvalid }

// orNil keeps an empty list from becoming an error that is not nil.
func (ps Problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// fieldErrors collects the steering.FieldErrors out of a tree of joined and
// wrapped errors, and the leaves that are none.
func fieldErrors(err error) (fields []*steering.FieldError, others []error) {
	switch e := err.(type) {
	case nil:
		return nil, nil
	case *steering.FieldError:
		return []*steering.FieldError{e}, nil
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			f, o := fieldErrors(inner)
			fields, others = append(fields, f...), append(others, o...)
		}
		return fields, others
	}
	if inner := errors.Unwrap(err); inner != nil {
		if f, o := fieldErrors(inner); len(f) > 0 {
			return f, o
		}
	}
	return nil, []error{err}
}

// objectOf names an object as the views and events do.
func objectOf(kind, name string) string { return strings.ToLower(kind) + "/" + name }
