package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// ErrorBody is what every answer that is an error holds.
type ErrorBody struct {
	Error   string   `json:"error"`
	Details Problems `json:"details,omitempty"`
}

// statusTable maps what is wrong to HTTP, in the order of being asked; the
// client maps it back. What is not here is 500.
func statusTable() []struct {
	err    error
	status int
} {
	return []struct {
		err    error
		status int
	}{
		{ErrForbidden, http.StatusForbidden},
		{ErrNotFound, http.StatusNotFound},
		{ErrConflict, http.StatusConflict},
		{ErrNotReady, http.StatusServiceUnavailable},
		{ErrInvalid, http.StatusUnprocessableEntity},
		{context.Canceled, http.StatusServiceUnavailable},
		{context.DeadlineExceeded, http.StatusGatewayTimeout},
	}
}

// statusOf finds the HTTP status of an error and what to tell of it. Field
// faults of the reconciler are problems of the documents.
func statusOf(err error) (int, ErrorBody) {
	body := ErrorBody{Error: err.Error()}
	var ps Problems
	if errors.As(err, &ps) {
		body.Details = ps
	} else if fields, others := fieldErrors(err); len(fields) > 0 {
		for _, f := range fields {
			body.Details = append(body.Details, Problem{Object: objectOf(KindService, f.Service), Field: f.Field, Problem: f.Problem})
		}
		if len(others) == 0 {
			return http.StatusUnprocessableEntity, body
		}
	}
	for _, row := range statusTable() {
		if errors.Is(err, row.err) {
			// The status says it already; what follows is for people.
			if rest, ok := strings.CutPrefix(body.Error, row.err.Error()+": "); ok && row.err != ErrForbidden {
				body.Error = rest
			}
			return row.status, body
		}
	}
	return http.StatusInternalServerError, body
}

// StatusError is an answer of the daemon that is an error. It wraps the
// sentinel of its status.
type StatusError struct {
	Status  int
	Message string
	Details Problems
}

func (e *StatusError) Error() string { return e.Message }

// Unwrap returns ErrNotFound, ErrInvalid and so on, or nil.
func (e *StatusError) Unwrap() error {
	for _, row := range statusTable() {
		if row.status == e.Status {
			return row.err
		}
	}
	return nil
}
