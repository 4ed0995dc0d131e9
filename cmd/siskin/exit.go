package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/loader"
)

// The exit codes of the contract.
const (
	exitOK         = 0
	exitFailed     = 1
	exitUsage      = 2
	exitRolledBack = 3 // of watching a release
	exitTimeout    = 4
	exitNoDaemon   = 5
	exitLocked     = 6
)

// usageError is a command that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errSilent fails a command whose output has said why.
var errSilent = errors.New("failed")

// exitCode is the one place that maps errors to exit codes.
func exitCode(err error) int {
	var wrong usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		return exitUsage
	case errors.Is(err, errRolledBack):
		return exitRolledBack
	case errors.Is(err, api.ErrNoDaemon):
		return exitNoDaemon
	case errors.Is(err, loader.ErrLocked), errors.Is(err, api.ErrSocketInUse):
		return exitLocked
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	return exitFailed
}

// report writes an error in one line, and problems of documents in a line
// each: those with a place as compilers do, so that editors jump there.
func report(w io.Writer, err error) {
	var ps api.Problems
	var status *api.StatusError
	switch {
	case err == nil, errors.Is(err, errSilent), errors.Is(err, errRolledBack): // the output has said why
		return
	case errors.As(err, &ps):
	case errors.As(err, &status) && len(status.Details) > 0:
		ps = status.Details
	default:
		_, _ = fmt.Fprintf(w, "siskin: %s\n", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
		return
	}
	for _, p := range ps {
		if p.File == "" {
			_, _ = fmt.Fprintf(w, "siskin: %s\n", p)
			continue
		}
		_, _ = fmt.Fprintln(w, p)
	}
}
