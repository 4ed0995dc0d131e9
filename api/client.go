package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"siskin.dev/siskin/steering"
)

// ErrNoDaemon says that nobody answers on the socket.
var ErrNoDaemon = errors.New("no daemon")

// ErrSilent says that somebody listens on the socket and does not answer.
var ErrSilent = errors.New("the daemon does not answer")

// How long a daemon may take: it answers from memory, except that applying
// writes the maps of every service.
const (
	answerTimeout = 10 * time.Second
	applyTimeout  = time.Minute
)

// Client talks to the daemon. Its zero value uses DefaultSocket. An error
// that the daemon answered is a *StatusError and wraps ErrNotFound,
// ErrInvalid and so on.
type Client struct {
	Socket string // path; default DefaultSocket

	// Timeout is how long to wait for a whole answer before giving up with
	// ErrSilent; a watch waits for ever. Default 10 s, and 60 s for Apply.
	Timeout time.Duration
}

func (c Client) path() string {
	if c.Socket == "" {
		return DefaultSocket
	}
	return c.Socket
}

// dial opens a connection, or says what is wrong with the socket.
func (c Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w answers on %s: start one with siskin run, or name its socket with --socket", ErrNoDaemon, c.path())
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: you may not use %s: use sudo, or join the socket's group", ErrForbidden, c.path())
	}
	return conn, err
}

// send makes one request. The caller closes the body.
func (c Client) send(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "siskin", Path: Prefix + path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	hc := http.Client{Transport: &http.Transport{DialContext: c.dial, DisableKeepAlives: true}}
	res, err := hc.Do(req)
	var wrapped *url.Error
	switch {
	case errors.As(err, &wrapped): // its address is made up and would only confuse
		var op *net.OpError
		if errors.Is(err, ErrNoDaemon) || errors.Is(err, ErrForbidden) || !errors.As(err, &op) {
			return nil, wrapped.Err
		}
		return nil, fmt.Errorf("ask the daemon: %w", wrapped.Err)
	case err != nil:
		return nil, fmt.Errorf("ask the daemon: %w", err)
	case res.StatusCode >= 300:
		defer func() { _ = res.Body.Close() }()
		return nil, failure(res)
	}
	return res, nil
}

// failure reads an answer that is an error.
func failure(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, maxSource))
	var body ErrorBody
	if err != nil || json.Unmarshal(b, &body) != nil || body.Error == "" {
		return &StatusError{Status: res.StatusCode, Message: "the daemon answered " + res.Status + " without saying why; see its log"}
	}
	return &StatusError{Status: res.StatusCode, Message: body.Error, Details: body.Details}
}

// silent returns what to tell the user when it was our timeout that ended the
// request, and err otherwise. It hides context.DeadlineExceeded, which stands
// for a deadline that the caller has set.
func silent(ctx context.Context, err error, timeout time.Duration) error {
	if err == nil || !errors.Is(context.Cause(ctx), ErrSilent) {
		return err
	}
	return fmt.Errorf("%w within %gs: restart it; the kernel goes on steering as it is", ErrSilent, timeout.Seconds())
}

// call makes a request whose answer is one JSON value, which must be there
// before the client's timeout ends.
func call[T any](ctx context.Context, c Client, method, path string, query url.Values, in any) (out T, err error) {
	var body []byte
	switch v := in.(type) {
	case nil:
	case []byte:
		body = v
	default:
		if body, err = json.Marshal(in); err != nil {
			return out, fmt.Errorf("write the request: %w", err)
		}
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = answerTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrSilent)
	defer cancel()
	res, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return out, silent(ctx, err, timeout)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, silent(ctx, fmt.Errorf("read the daemon's answer: %w", err), timeout)
	}
	return out, nil
}

// follow makes a request whose answer is a stream of JSON lines, and calls
// each until it returns an error, the stream ends, or ctx does.
func follow[T any](ctx context.Context, c Client, path string, query url.Values, each func(T) error) error {
	query.Set("watch", "1")
	res, err := c.send(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := json.NewDecoder(bufio.NewReader(res.Body))
	for {
		var v T
		err := lines.Decode(&v)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%w answers any more: it ended the stream", ErrNoDaemon)
		case err != nil:
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}

// Apply sends the documents. Problems in the answer name the places in the
// files that the documents were read from.
func (c Client) Apply(ctx context.Context, docs []Document, dryRun bool) (ApplyResult, error) {
	var body bytes.Buffer
	for _, d := range docs {
		b, err := json.Marshal(d)
		if err != nil {
			return ApplyResult{}, fmt.Errorf("write %s: %w", d.Name(), err)
		}
		body.WriteString("---\n")
		body.Write(append(b, '\n'))
	}
	query := url.Values{}
	if dryRun {
		query.Set("dryRun", "1")
	}
	if c.Timeout == 0 {
		c.Timeout = applyTimeout
	}
	out, err := call[ApplyResult](ctx, c, http.MethodPost, "/apply", query, body.Bytes())
	var status *StatusError
	if errors.As(err, &status) && len(status.Details) > 0 {
		return out, Explain(docs, status.Details)
	}
	return out, err
}

// Delete removes an object.
func (c Client) Delete(ctx context.Context, kind, name string) error {
	path, ok := map[string]string{KindService: "/services/", KindRelease: "/releases/"}[kind]
	if !ok {
		return fmt.Errorf("%w: %q is not a kind that can be deleted: write service or release", ErrInvalid, kind)
	}
	_, err := call[struct{}](ctx, c, http.MethodDelete, path+url.PathEscape(name), nil, nil)
	return err
}

// Services returns every service.
func (c Client) Services(ctx context.Context) ([]ServiceView, error) {
	return call[[]ServiceView](ctx, c, http.MethodGet, "/services", nil, nil)
}

// WatchServices calls each with every service, again whenever one changed.
func (c Client) WatchServices(ctx context.Context, each func([]ServiceView) error) error {
	return follow(ctx, c, "/services", url.Values{}, each)
}

// Service returns one service.
func (c Client) Service(ctx context.Context, name string) (ServiceView, error) {
	return call[ServiceView](ctx, c, http.MethodGet, "/services/"+url.PathEscape(name), nil, nil)
}

// Backends returns every backend.
func (c Client) Backends(ctx context.Context) ([]BackendView, error) {
	return call[[]BackendView](ctx, c, http.MethodGet, "/backends", nil, nil)
}

// WatchBackends calls each with every backend, again whenever one changed.
func (c Client) WatchBackends(ctx context.Context, each func([]BackendView) error) error {
	return follow(ctx, c, "/backends", url.Values{}, each)
}

// Flows returns at most limit flows that match.
func (c Client) Flows(ctx context.Context, f FlowFilter, limit int) (FlowList, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for name, v := range map[string]string{"service": f.Service, "version": f.Version, "backend": f.Backend, "client": f.Client, "state": f.State} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return call[FlowList](ctx, c, http.MethodGet, "/flows", q, nil)
}

// Events returns the events after a sequence number that are kept.
func (c Client) Events(ctx context.Context, after uint64) ([]Event, error) {
	return call[[]Event](ctx, c, http.MethodGet, "/events", url.Values{"after": {strconv.FormatUint(after, 10)}}, nil)
}

// WatchEvents calls each with every event after a sequence number, and with
// those to come.
func (c Client) WatchEvents(ctx context.Context, after uint64, each func(Event) error) error {
	return follow(ctx, c, "/events", url.Values{"after": {strconv.FormatUint(after, 10)}}, each)
}

// Weights returns the shares that were asked for, by version.
func (c Client) Weights(ctx context.Context, service string) (map[string]Share, error) {
	w, err := call[Weights](ctx, c, http.MethodGet, "/services/"+url.PathEscape(service)+"/weights", nil, nil)
	return w.Weights, err
}

// SetWeights changes the shares of the named versions.
func (c Client) SetWeights(ctx context.Context, service string, shares map[string]steering.Share) (WeightResult, error) {
	in := Weights{Weights: map[string]Share{}}
	for name, share := range shares {
		in.Weights[name] = Share(share)
	}
	return call[WeightResult](ctx, c, http.MethodPut, "/services/"+url.PathEscape(service)+"/weights", nil, in)
}

// Rollback gives everything to stable, in the named services or in all.
func (c Client) Rollback(ctx context.Context, services []string, all bool) (RollbackResult, error) {
	return call[RollbackResult](ctx, c, http.MethodPost, "/rollback", nil, RollbackRequest{Services: services, All: all})
}

// Doctor returns what the daemon found on its host.
func (c Client) Doctor(ctx context.Context) (DoctorReport, error) {
	return call[DoctorReport](ctx, c, http.MethodGet, "/doctor", nil, nil)
}

// Version says which daemon is running.
func (c Client) Version(ctx context.Context) (VersionInfo, error) {
	return call[VersionInfo](ctx, c, http.MethodGet, "/version", nil, nil)
}
