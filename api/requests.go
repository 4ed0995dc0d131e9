package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// RequestsView is what was asked and answered in an interval: the difference of
// two readings. What was counted before says nothing of how it goes now.
type RequestsView struct {
	Seconds  float64           `json:"seconds"`  // the interval's length
	EndNs    int64             `json:"endNs"`    // its end, monotonic
	Versions []VersionRequests `json:"versions"` // by service, stable first
}

// VersionRequests are the requests of one version.
type VersionRequests struct {
	Service string `json:"service"`
	Version string `json:"version"`
	Weight  Share  `json:"weight"` // asked, at the end
	RequestCounts
	Response ResponseTimes     `json:"response"`
	Backends []BackendRequests `json:"backends"`
}

// BackendRequests are the requests of one backend. Times are by version only.
type BackendRequests struct {
	Address string `json:"address"` // ip:port
	RequestCounts
}

// RequestCounts are what both are told of.
type RequestCounts struct {
	Rate             float64  `json:"rate"`       // answers a second, the unparsed too
	ErrorRatio       *float64 `json:"errorRatio"` // 5xx and grpc_error, of the answers whose status is known; null: none
	Answers          Answers  `json:"answers"`    // in the interval
	ConnectionErrors Errors   `json:"connectionErrors"`
	Total            Answers  `json:"total"` // as siskin_requests_total has them at the end
}

// Failures is how many answers and connections failed in the interval.
func (c RequestCounts) Failures() uint64 { return c.Answers.Failed() + c.ConnectionErrors.Sum() }

// Answers counts requests by the codes of siskin_requests_total.
type Answers struct {
	Code1xx   uint64 `json:"1xx"`
	Code2xx   uint64 `json:"2xx"`
	Code3xx   uint64 `json:"3xx"`
	Code4xx   uint64 `json:"4xx"`
	Code5xx   uint64 `json:"5xx"`
	GRPCOK    uint64 `json:"grpc_ok"`
	GRPCError uint64 `json:"grpc_error"`
	Unparsed  uint64 `json:"unparsed"` // on connections that do not speak HTTP, or lost
	TLS       uint64 `json:"tls"`      // of the unparsed: on encrypted connections
	Lost      uint64 `json:"lost"`     // of the unparsed: on connections that speak it
}

// Known is how many have a status that is known.
func (a Answers) Known() uint64 {
	return a.Code1xx + a.Code2xx + a.Code3xx + a.Code4xx + a.Code5xx + a.GRPCOK + a.GRPCError
}

// Sum is how many there are in all.
func (a Answers) Sum() uint64 { return a.Known() + a.Unparsed }

// Failed is how many say that the server failed.
func (a Answers) Failed() uint64 { return a.Code5xx + a.GRPCError }

// ResponseTimes are the times from a request to the first byte of its answer,
// in the interval, in seconds.
type ResponseTimes struct {
	Count uint64   `json:"count"`
	P50   *float64 `json:"p50"` // null: no data
	P95   *float64 `json:"p95"`
	P99   *float64 `json:"p99"`
}

// Bounds of an interval: below the first a reading of many services takes too
// much of it, above the last nobody waits for an answer.
const (
	RequestsInterval    = time.Second // where none is asked for
	MinRequestsInterval = 100 * time.Millisecond
	MaxRequestsInterval = 30 * time.Second
)

var errOneIsEnough = errors.New("one view is enough")

// requests answers after one interval, or streams one view after another.
func (s *Server) requests(w http.ResponseWriter, r *http.Request) {
	interval, err := intervalOf(r.URL.Query().Get("interval"))
	if err != nil {
		s.fail(w, err)
		return
	}
	stays := flagged(r, "watch")
	r, cancel := s.untilStop(r)
	defer cancel()
	var out *stream
	err = s.o.Control.Requests(r.Context(), r.URL.Query().Get("service"), interval, func(v RequestsView) error {
		if !stays {
			s.answer(w, http.StatusOK, v)
			return errOneIsEnough
		}
		if out == nil {
			out = newStream(w)
		}
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return out.send(line)
	})
	switch {
	case err == nil || errors.Is(err, errOneIsEnough):
	case out == nil:
		s.fail(w, err)
	default:
		s.o.Log.Debug("a watch ends", "path", r.URL.Path, "error", err)
	}
}

func intervalOf(text string) (time.Duration, error) {
	if text == "" {
		return RequestsInterval, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < MinRequestsInterval || d > MaxRequestsInterval {
		return 0, fmt.Errorf("%w: interval %q is not a time from %v to %v", ErrInvalid, text, MinRequestsInterval, MaxRequestsInterval)
	}
	return d, nil
}

// Requests waits for an interval and returns what was asked and answered in it:
// of one service, or of all where service is "".
func (c Client) Requests(ctx context.Context, service string, interval time.Duration) (RequestsView, error) {
	if c.Timeout == 0 {
		c.Timeout = answerTimeout
	}
	c.Timeout += interval
	return call[RequestsView](ctx, c, http.MethodGet, "/requests", requestsQuery(service, interval), nil)
}

// WatchRequests calls each with what was asked and answered in each interval
// from now on.
func (c Client) WatchRequests(ctx context.Context, service string, interval time.Duration, each func(RequestsView) error) error {
	return follow(ctx, c, "/requests", requestsQuery(service, interval), each)
}

func requestsQuery(service string, interval time.Duration) url.Values {
	q := url.Values{"interval": {interval.String()}}
	if service != "" {
		q.Set("service", service)
	}
	return q
}
