package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// stream writes JSON lines, each as soon as it is there.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &stream{w: w, rc: http.NewResponseController(w)}
}

// send gives a reader ten seconds for each line, so that one that stopped
// reading does not hold a connection for ever.
func (s *stream) send(line []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "%s\n", line); err != nil {
		return err
	}
	return s.rc.Flush()
}

// watch answers again whenever the answer has changed, at most once in an
// interval.
func (s *Server) watch(do action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, cancel := s.untilStop(r)
		defer cancel()
		tick := time.NewTicker(s.o.WatchInterval)
		defer tick.Stop()
		var out *stream
		var last []byte
		for {
			line, err := marshal(do(r))
			switch {
			case err != nil && out == nil:
				s.fail(w, err)
				return
			case err != nil:
				s.o.Log.Debug("a watch ends", "path", r.URL.Path, "error", err)
				return
			case out == nil:
				out = newStream(w)
			}
			if !bytes.Equal(line, last) {
				last = line
				if err := out.send(line); err != nil {
					return
				}
			}
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	})
}

// untilStop ends a stream's request when the server shuts down.
func (s *Server) untilStop(r *http.Request) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.stopping, cancel)
	return r.WithContext(ctx), func() { stop(); cancel() }
}

func marshal(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// events answers with those that are kept, or streams them as they come.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	after, err := sequence(r.URL.Query().Get("after"))
	if err != nil {
		s.fail(w, err)
		return
	}
	if !flagged(r, "watch") {
		list, err := listed(s.o.Control.Events(r.Context(), after, false))
		if err != nil {
			s.fail(w, err)
			return
		}
		s.answer(w, http.StatusOK, list)
		return
	}
	r, cancel := s.untilStop(r)
	defer cancel()
	out := newStream(w)
	if err := out.rc.Flush(); err != nil { // the headers: the caller knows that it listens
		return
	}
	for {
		list, err := s.o.Control.Events(r.Context(), after, true)
		if err != nil {
			return
		}
		for _, e := range list {
			line, err := json.Marshal(e)
			if err != nil || out.send(line) != nil {
				return
			}
			after = e.Seq
		}
	}
}

func sequence(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: after=%q is not the number of an event", ErrInvalid, s)
	}
	return n, nil
}
