package api

import (
	"context"
	"net/http"
	"net/url"
)

// Releases returns every release, without their histories.
func (c Client) Releases(ctx context.Context) ([]ReleaseView, error) {
	return call[[]ReleaseView](ctx, c, http.MethodGet, "/releases", nil, nil)
}

// WatchReleases calls each with every release, again whenever one changed.
func (c Client) WatchReleases(ctx context.Context, each func([]ReleaseView) error) error {
	return follow(ctx, c, "/releases", url.Values{}, each)
}

// Release returns one release with its history.
func (c Client) Release(ctx context.Context, name string) (ReleaseView, error) {
	return call[ReleaseView](ctx, c, http.MethodGet, "/releases/"+url.PathEscape(name), nil, nil)
}

// WatchRelease calls each with one release, again whenever it changed. It ends
// with ErrNoDaemon where the stream does, also when the release is deleted.
func (c Client) WatchRelease(ctx context.Context, name string, each func(ReleaseView) error) error {
	return follow(ctx, c, "/releases/"+url.PathEscape(name), url.Values{}, each)
}

// DriveRelease gives a release a command, one of the Verb… constants, and
// returns how it stands after that. full belongs to VerbPromote.
func (c Client) DriveRelease(ctx context.Context, name, verb string, full bool) (ReleaseView, error) {
	path := "/releases/" + url.PathEscape(name) + "/" + url.PathEscape(verb)
	return call[ReleaseView](ctx, c, http.MethodPost, path, nil, PromoteRequest{Full: full})
}

// Report adds outcomes of a version that only the caller has seen.
func (c Client) Report(ctx context.Context, service, version string, o Outcomes) error {
	path := "/services/" + url.PathEscape(service) + "/versions/" + url.PathEscape(version) + "/report"
	_, err := call[struct{}](ctx, c, http.MethodPost, path, nil, o)
	return err
}
