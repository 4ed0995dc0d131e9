package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"siskin.dev/siskin/api"
)

// hang listens as a daemon does that is stuck: it takes connections, sends
// what it is told to, and then nothing. It drops them when the test ends.
func hang(t *testing.T, says string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			open = append(open, conn)
			if says == "" {
				continue
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, says)
			}
		}
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return path
}

const (
	headOnly   = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n"
	failedHead = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\n{"
)

func TestHungDaemon(t *testing.T) {
	for name, says := range map[string]string{"no answer": "", "half an answer": headOnly, "half an error": failedHead} {
		t.Run(name, func(t *testing.T) {
			c := api.Client{Socket: hang(t, says), Timeout: 50 * time.Millisecond}
			for what, ask := range map[string]func(context.Context) error{
				"services": func(ctx context.Context) error { _, err := c.Services(ctx); return err },
				"delete":   func(ctx context.Context) error { return c.Delete(ctx, api.KindService, "checkout") },
				"apply":    func(ctx context.Context) error { _, err := c.Apply(ctx, nil, false); return err },
			} {
				err := ask(t.Context())
				if !errors.Is(err, api.ErrSilent) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, api.ErrNoDaemon) {
					t.Errorf("%s: %v, want only ErrSilent", what, err)
				}
				want := "the daemon does not answer within 0.05s: restart it; the kernel goes on steering as it is"
				if fmt.Sprint(err) != want {
					t.Errorf("%s says %q, want %q", what, fmt.Sprint(err), want)
				}
			}
		})
	}
}

// The caller's own deadline stays what it is: --timeout has an exit code.
func TestHungDaemonCallersDeadline(t *testing.T) {
	c := api.Client{Socket: hang(t, "")}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Services(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, api.ErrSilent) {
		t.Errorf("past the caller's deadline: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.Services(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A watch is silent for as long as nothing happens.
func TestWatchOutlivesTheTimeout(t *testing.T) {
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{})
	c.Timeout = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	err := c.WatchServices(ctx, func([]api.ServiceView) error {
		if n++; n == 1 {
			time.AfterFunc(20*c.Timeout, cancel)
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n == 0 {
		t.Errorf("after %d values the watch ended with %v", n, err)
	}
}
