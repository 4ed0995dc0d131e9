package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/metrics"
)

// doors are what the daemon answers on. They are opened first, so that a
// daemon that cannot be asked never touches the kernel, and served last.
type doors struct {
	socket net.Listener
	http   net.Listener // nil: not wanted
}

func listen(opts Options) (*doors, error) {
	socket, err := api.Listen(api.SocketOptions{Path: opts.Socket, Group: opts.SocketGroup})
	if err != nil {
		return nil, err
	}
	out := &doors{socket: socket}
	if opts.Listen == "none" {
		return out, nil
	}
	if out.http, err = net.Listen("tcp", opts.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for /metrics: %w; choose another address with --listen, or `--listen none`", err), socket.Close())
	}
	return out, nil
}

// close closes what is still open.
func (o *doors) close() error {
	errs := []error{closeListener(o.socket)}
	if o.http != nil {
		errs = append(errs, closeListener(o.http))
	}
	return errors.Join(errs...)
}

func closeListener(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil // its server closed it
}

// serve answers until ctx ends, and then ends within stopWithin.
func (o *doors) serve(ctx context.Context, d *daemon) error {
	group, ctx := errgroup.WithContext(ctx)
	control := api.NewServer(api.ServerOptions{Control: control{d}, Log: d.log, Writers: d.opts.Writers})
	group.Go(func() error { return control.Serve(o.socket) })
	group.Go(func() error {
		<-ctx.Done()
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer stop()
		return control.Shutdown(ctx)
	})
	if o.http == nil {
		return group.Wait()
	}
	pages := &http.Server{
		Handler:           d.pages(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
	group.Go(func() error {
		if err := pages.Serve(o.http); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve /metrics: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer stop()
		if err := pages.Shutdown(ctx); err != nil {
			return errors.Join(fmt.Errorf("shut /metrics down: %w", err), pages.Close())
		}
		return nil
	})
	return group.Wait()
}

// pages serves what monitoring asks for. It only reads.
func (d *daemon) pages() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(d.registry, d.log))
	mux.HandleFunc("GET /healthz", answer(d.healthy))
	mux.HandleFunc("GET /readyz", answer(d.ready))
	return sameHost(mux)
}

// sameHost refuses requests that a page of another site makes a browser send
// to a listener on the loopback address: such a page reaches it by a name of
// its own that it lets point there (DNS rebinding).
func sameHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if at, ok := local.(*net.TCPAddr); ok && at.IP.IsLoopback() && !loopbackName(r.Host) {
			http.Error(w, "ask for this page by localhost or a loopback address", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func answer(ask func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := ask(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}
