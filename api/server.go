package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// Prefix is the path below which the API lies.
const Prefix = "/v1alpha1"

// ServerOptions say how a Server serves.
type ServerOptions struct {
	Control Control
	Log     *slog.Logger
	// Writers are the users beside root and the daemon's own who may change
	// things.
	Writers []uint32
	// WatchInterval is the shortest time between two states of a watch;
	// default 500 ms.
	WatchInterval time.Duration
}

// Server serves a Control over HTTP on a Unix socket.
type Server struct {
	o    ServerOptions
	http *http.Server
	who  access
	// names are those of the users who may write.
	names map[uint32]string

	stopping context.Context // ends the streams, and no other request
	stop     context.CancelFunc
}

// NewServer makes a server; Serve starts it.
func NewServer(o ServerOptions) *Server {
	if o.WatchInterval <= 0 {
		o.WatchInterval = 500 * time.Millisecond
	}
	s := &Server{o: o, names: namesOf(append([]uint32{0, uint32(os.Geteuid())}, o.Writers...)...)}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.handler(),
		ConnContext:       s.withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second, // streams set their own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers on l until Shutdown, and then returns nil. Who may read is
// taken from the group of the socket's file.
func (s *Server) Serve(l net.Listener) error {
	path := l.Addr().String()
	if own, ok := l.(*socket); ok {
		path = own.path
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.who = access{group: st.Gid, writers: s.o.Writers}
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// Shutdown ends the streams, waits for requests until ctx ends, and closes.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut the API down: %w", err), s.http.Close())
	}
	return nil
}

// action answers one request; the result is written as JSON.
type action func(r *http.Request) (any, error)

func (s *Server) handler() http.Handler {
	c := s.o.Control
	mux := http.NewServeMux()
	read := func(path string, do action) { mux.Handle("GET "+Prefix+path, s.guard(false, do)) }
	write := func(method, path string, do action) { mux.Handle(method+" "+Prefix+path, s.guard(true, do)) }
	watch := func(path string, do action) {
		plain, stream := s.guard(false, do), s.allow(false, s.watch(do))
		mux.HandleFunc("GET "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
			if flagged(r, "watch") {
				stream.ServeHTTP(w, r)
				return
			}
			plain.ServeHTTP(w, r)
		})
	}

	watch("/services", func(r *http.Request) (any, error) { return listed(c.Services(r.Context())) })
	watch("/services/{name}", s.service)
	watch("/releases", func(r *http.Request) (any, error) { return listed(c.Releases(r.Context())) })
	watch("/releases/{name}", s.release)
	watch("/backends", func(r *http.Request) (any, error) { return listed(c.Backends(r.Context())) })
	read("/services/{name}/weights", s.weights)
	read("/flows", s.flows)
	mux.Handle("GET "+Prefix+"/events", s.allow(false, http.HandlerFunc(s.events)))
	mux.Handle("GET "+Prefix+"/requests", s.allow(false, http.HandlerFunc(s.requests)))
	read("/doctor", func(r *http.Request) (any, error) { return c.Doctor(r.Context()) })
	read("/version", func(r *http.Request) (any, error) { return c.Version(r.Context()) })

	write("POST", "/apply", s.apply)
	write("POST", "/services", s.apply)
	write("POST", "/releases", s.apply)
	for kind, path := range map[string]string{KindService: "/services/{name}", KindRelease: "/releases/{name}"} {
		write("PUT", path, func(r *http.Request) (any, error) { return s.put(r, kind) })
		write("DELETE", path, func(r *http.Request) (any, error) {
			return struct{}{}, c.Delete(r.Context(), kind, r.PathValue("name"))
		})
	}
	write("POST", "/releases/{name}/{verb}", s.drive)
	write("POST", "/services/{name}/versions/{version}/report", s.report)
	write("PUT", "/services/{name}/weights", s.setWeights)
	write("POST", "/rollback", s.rollback)
	mux.Handle("/", s.guard(false, func(r *http.Request) (any, error) {
		return nil, fmt.Errorf("%w: %s %s; what there is lies below %s, such as %s/services", ErrNotFound, r.Method, r.URL.Path, Prefix, Prefix)
	}))
	return mux
}

// guard checks who asks, answers, and leaves a line about every write.
func (s *Server) guard(write bool, do action) http.Handler {
	return s.allow(write, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result, err := do(r)
		if write {
			s.audit(r, err)
		}
		if err != nil {
			s.fail(w, err)
			return
		}
		s.answer(w, http.StatusOK, result)
	}))
}

// allow lets a request through when its sender may do it.
func (s *Server) allow(write bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.who.check(peerIn(r), write); err != nil {
			s.audit(r, err)
			s.fail(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) audit(r *http.Request, err error) {
	p := peerIn(r)
	attrs := []any{"method", r.Method, "path", r.URL.RequestURI(), "uid", p.uid, "pid", p.pid}
	if err != nil {
		status, _ := statusOf(err)
		s.o.Log.Warn("request refused", append(attrs, "status", status, "error", err)...)
		return
	}
	s.o.Log.Info("request carried out", attrs...)
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	status, body := statusOf(err)
	s.answer(w, status, body)
}

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.o.Log.Error("cannot write an answer", "error", err)
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.o.Log.Debug("the caller went away", "error", err)
	}
}
