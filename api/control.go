package api

import (
	"context"
	"errors"
	"time"

	"siskin.dev/siskin/steering"
)

// Errors that a Control returns (wrapped) where the caller decides by them.
// The server turns each into an HTTP status and the client turns it back.
var (
	// ErrNotFound: there is no object of this name.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the request itself is wrong, and stays wrong when repeated.
	ErrInvalid = errors.New("invalid")
	// ErrConflict: right in itself, but not in the present state.
	ErrConflict = errors.New("conflict")
	// ErrNotReady: the daemon has not yet read its maps; try again.
	ErrNotReady = errors.New("not ready")
)

// Control is what the server asks of the daemon. Methods may be called from
// several goroutines at once. Errors that wrap one of the sentinels above
// reach the user with the matching status; any other is a failure of ours.
type Control interface {
	// Apply makes the documents part of the desired state: all of them, or
	// none. They are already checked one by one; Apply checks them against
	// the services that exist. With dryRun it only says what would happen.
	// Problems with fields are steering.FieldError values, joined.
	Apply(ctx context.Context, docs []Document, dryRun bool) (ApplyResult, error)
	// Delete removes one object; its open connections go on. kind is as in
	// the documents ("Service", "Release"). A release that runs rolls back first.
	Delete(ctx context.Context, kind, name string) error

	// Services returns every service, in the order of their names.
	Services(ctx context.Context) ([]ServiceView, error)
	// Backends returns every backend, also retired ones that still have
	// connections, ordered by service, version (stable first) and address.
	Backends(ctx context.Context) ([]BackendView, error)
	// Flows returns at most limit flows that match the filter.
	Flows(ctx context.Context, filter FlowFilter, limit int) (FlowList, error)
	// Requests calls each with what was asked and answered in each interval
	// from now on, of one service or of all (""), until each returns an error or
	// ctx ends, and returns that error.
	Requests(ctx context.Context, service string, interval time.Duration, each func(RequestsView) error) error
	// Events returns the events after sequence number after (0: all that are
	// kept), oldest first. With wait it blocks until there is at least one,
	// and returns ctx's error when ctx ends first.
	Events(ctx context.Context, after uint64, wait bool) ([]Event, error)

	// SetWeights changes the shares of the named versions and leaves the
	// others. The store comes first, all bookkeeping after it.
	SetWeights(ctx context.Context, service string, shares map[string]steering.Share) (WeightResult, error)
	// Rollback gives everything to stable: in the named services, or with all
	// in every one. A name that does not exist is ErrNotFound, said after the
	// others were rolled back: nothing may hold a rollback up.
	Rollback(ctx context.Context, services []string, all bool) (RollbackResult, error)

	// Releases returns every release in the order of their names, without
	// histories.
	Releases(ctx context.Context) ([]ReleaseView, error)
	// Release returns one release with its history.
	Release(ctx context.Context, name string) (ReleaseView, error)
	// DriveRelease gives a release a command, one of the Verb… constants; full
	// belongs to VerbPromote. What its phase does not allow is ErrConflict, and
	// says which command does.
	DriveRelease(ctx context.Context, name, verb string, full bool) (ReleaseView, error)
	// Report adds outcomes that only the caller has seen to what is known of a
	// version. Where no release judges by them, that is ErrConflict.
	Report(ctx context.Context, service, version string, o Outcomes) error

	// Doctor checks this host.
	Doctor(ctx context.Context) (DoctorReport, error)
	// Version says what is running.
	Version(ctx context.Context) (VersionInfo, error)
}
