package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/api/apitest"
	"siskin.dev/siskin/steering"
)

const checkout = `apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: checkout}
spec:
  frontends: ["198.18.0.10:80/tcp"]
  versions:
    stable: {backends: ["10.1.0.2:8080"]}
    canary: {backends: ["10.1.0.4:8080"]}
  weights: {canary: 5%}
`

// journal is a log that several goroutines may write.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// serve starts a server on a socket in a new directory.
func serve(t *testing.T, o api.SocketOptions, so api.ServerOptions) (api.Client, *journal) {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "run", "siskin.sock")
	}
	log := &journal{}
	so.Log = slog.New(slog.NewTextHandler(log, nil))
	if so.Control == nil {
		so.Control = apitest.New()
	}
	l, err := api.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	s := api.NewServer(so)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Lstat(o.Path); err == nil {
			t.Errorf("the socket is still there")
		}
	})
	return api.Client{Socket: o.Path}, log
}

func read(t *testing.T, text string) []api.Document {
	t.Helper()
	docs, err := api.Read(api.Source{Name: "test.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestApplyAndShow(t *testing.T) {
	c, log := serve(t, api.SocketOptions{}, api.ServerOptions{})
	ctx := t.Context()
	docs := read(t, strings.ReplaceAll(checkout, "/tcp", "/udp")+"  healthCheck: {tcp: {}}\n")
	if res, err := c.Apply(ctx, docs, true); err != nil || !res.DryRun || res.Objects[0].Outcome != api.OutcomeCreated {
		t.Fatalf("dry run: %+v, %v", res, err)
	}
	if list, err := c.Services(ctx); err != nil || len(list) != 0 {
		t.Fatalf("a dry run changed something: %+v, %v", list, err)
	}
	res, err := c.Apply(ctx, docs, false)
	if err != nil || len(res.Objects) != 1 || len(res.Objects[0].Warnings) != 1 {
		t.Fatalf("apply: want one object with a warning: %+v, %v", res, err)
	}
	v, err := c.Service(ctx, "checkout")
	if err != nil || len(v.Versions) != 2 || v.Versions[1].Weight != 500 || v.Frontends[0].String() != "198.18.0.10:80/udp" {
		t.Fatalf("service: %+v, %v", v, err)
	}
	if b, err := c.Backends(ctx); err != nil || len(b) != 2 {
		t.Fatalf("backends: %+v, %v", b, err)
	}
	w, err := c.SetWeights(ctx, "checkout", map[string]steering.Share{"canary": 1})
	if err != nil || w.Old["canary"] != 500 || w.New["canary"] != 1 || w.New["stable"] != 9999 {
		t.Fatalf("weights: %+v, %v", w, err)
	}
	rb, err := c.Rollback(ctx, nil, true)
	if err != nil || len(rb.Services) != 1 || rb.Services[0].Before["canary"] != 1 {
		t.Fatalf("rollback: %+v, %v", rb, err)
	}
	if got, err := c.Weights(ctx, "checkout"); err != nil || got["stable"] != 10000 {
		t.Fatalf("weights after the rollback: %v, %v", got, err)
	}
	if err := c.Delete(ctx, api.KindService, "checkout"); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "request carried out"); n != 5 {
		t.Errorf("%d audit lines for 5 writes:\n%s", n, log)
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	fake := apitest.New()
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{Control: fake})
	ctx := t.Context()
	if _, err := c.Apply(ctx, read(t, checkout), false); err != nil {
		t.Fatal(err)
	}
	_, notFound := c.Service(ctx, "nobody")
	_, tooMuch := c.SetWeights(ctx, "checkout", map[string]steering.Share{"canary": 10001})
	_, unknown := c.SetWeights(ctx, "checkout", map[string]steering.Share{"nobody": 1})
	_, neither := c.Rollback(ctx, nil, false)
	_, limit := c.Flows(ctx, api.FlowFilter{}, 0)
	_, partly := c.Rollback(ctx, []string{"nobody", "checkout"}, false)
	for name, c := range map[string]struct{ err, want error }{
		"unknown service":  {notFound, api.ErrNotFound},
		"over 100 %":       {tooMuch, api.ErrInvalid},
		"unknown version":  {unknown, api.ErrInvalid},
		"rollback of what": {neither, api.ErrInvalid},
		"no flows":         {limit, api.ErrInvalid},
		"partly unknown":   {partly, api.ErrNotFound},
		"delete nothing":   {c.Delete(ctx, api.KindService, "nobody"), api.ErrNotFound},
		"delete a kind":    {c.Delete(ctx, "Gateway", "x"), api.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: got %v, want one that wraps %v", name, c.err, c.want)
		}
	}
	if !strings.HasSuffix(fmt.Sprint(partly), "; rolled back all the same: checkout") {
		t.Errorf("a rollback that was half done does not say so: %v", partly)
	}
	fake.Err = fmt.Errorf("the maps are not read yet: %w", api.ErrNotReady)
	if _, err := c.Services(ctx); !errors.Is(err, api.ErrNotReady) {
		t.Errorf("not ready: %v", err)
	}
}

func TestConflictWithAnAppliedServiceNamesTheLine(t *testing.T) {
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{})
	if _, err := c.Apply(t.Context(), read(t, checkout), false); err != nil {
		t.Fatal(err)
	}
	_, err := c.Apply(t.Context(), read(t, strings.Replace(checkout, "name: checkout", "name: cart", 1)), false)
	const want = `test.yaml:5:15: spec.frontends[0]: 198.18.0.10:80/tcp belongs to service checkout already`
	if !errors.Is(err, api.ErrInvalid) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %v\nwant %s…", err, want)
	}
}

func TestRawRequests(t *testing.T) {
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{})
	hc := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", c.Socket)
	}}}
	defer hc.CloseIdleConnections()
	big := strings.Repeat("#", 9<<20)
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1alpha1/apply", checkout, 200},
		{"POST", "/v1alpha1/apply?dryRun=1", "kind: Release", 422},
		{"POST", "/v1alpha1/apply", big, 422},
		{"PUT", "/v1alpha1/services/checkout", checkout, 200},
		{"PUT", "/v1alpha1/services/cart", checkout, 422},
		{"PUT", "/v1alpha1/services/checkout/weights", `{"weights": {"canary": 5}}`, 422},
		{"PUT", "/v1alpha1/services/checkout/weights", `{"weights": {"canary": "5"}}`, 422},
		{"PUT", "/v1alpha1/services/checkout/weights", `{"weights": {"canary": "7%"}}`, 200},
		{"PUT", "/v1alpha1/services/checkout/weights", `{"weight": {"canary": "7%"}}`, 422},
		{"PUT", "/v1alpha1/services/checkout/weights", ``, 422},
		{"POST", "/v1alpha1/rollback", `{"all": true, "services": ["checkout"]}`, 422},
		{"GET", "/v1alpha1/events?after=x", "", 422},
		{"GET", "/v1alpha1/flows", "", 200},
		{"GET", "/v1alpha1/doctor", "", 200},
		{"GET", "/v1alpha1/version", "", 200},
		{"GET", "/v1alpha1/nothing", "", 404},
		{"DELETE", "/v1alpha1/services/none", "", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://siskin"+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := hc.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", tc.method, tc.path, err)
			continue
		}
		var b bytes.Buffer
		_, _ = b.ReadFrom(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tc.status || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: status %d, want %d: %s", tc.method, tc.path, res.StatusCode, tc.status, &b)
		}
		if tc.status >= 400 && !strings.Contains(b.String(), `"error":"`) {
			t.Errorf("%s %s: the answer says nothing: %s", tc.method, tc.path, &b)
		}
	}
}

func TestWatch(t *testing.T) {
	fake := apitest.New()
	c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{Control: fake, WatchInterval: time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	enough := errors.New("enough")
	states := 0
	err := c.WatchServices(ctx, func(list []api.ServiceView) error {
		states++
		switch {
		case states == 1 && len(list) == 0:
			_, err := c.Apply(ctx, read(t, checkout), false)
			return err
		case states == 2 && len(list) == 1:
			_, err := c.SetWeights(ctx, "checkout", map[string]steering.Share{"canary": 0})
			return err
		case states == 3 && list[0].Versions[1].Weight == 0:
			return enough
		}
		return fmt.Errorf("state %d: %+v", states, list)
	})
	if !errors.Is(err, enough) {
		t.Errorf("services: %v", err)
	}

	fake.Emit("Started", "daemon/siskin", "one")
	var seen []uint64
	err = c.WatchEvents(ctx, 0, func(e api.Event) error {
		if seen = append(seen, e.Seq); len(seen) == 3 {
			return enough
		}
		fake.Emit("WeightsChanged", "service/checkout", "more")
		return nil
	})
	if !errors.Is(err, enough) || fmt.Sprint(seen) != "[1 2 3]" {
		t.Errorf("events: %v, %v", seen, err)
	}
	if list, err := c.Events(ctx, 1); err != nil || len(list) < 2 || list[0].Seq != 2 {
		t.Errorf("events after 1: %+v, %v", list, err)
	}
}

// A stream must not keep the daemon from stopping: serve's cleanup fails when
// Shutdown runs into its deadline.
func TestShutdownEndsStreams(t *testing.T) {
	ended := make(chan error, 1)
	t.Run("stream", func(t *testing.T) {
		c, _ := serve(t, api.SocketOptions{}, api.ServerOptions{})
		first := make(chan struct{})
		go func() {
			ended <- c.WatchServices(context.Background(), func([]api.ServiceView) error { close(first); return nil })
		}()
		<-first
	})
	if err := <-ended; !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestSocketFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "siskin.sock")
	if _, err := (api.Client{Socket: path}).Services(t.Context()); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("no file: %v", err)
	}
	first, err := api.Listen(api.SocketOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o660 | os.ModeSocket, filepath.Dir(path): 0o750 | os.ModeDir} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if _, err := api.Listen(api.SocketOptions{Path: path}); !errors.Is(err, api.ErrSocketInUse) {
		t.Errorf("a socket in use was taken: %v", err)
	}
	// What a killed daemon leaves: a socket file that nobody listens on.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".x", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := errors.Join(stale.Close(), os.Rename(path+".x", path)); err != nil {
		t.Fatal(err)
	}
	if _, err := (api.Client{Socket: path}).Services(t.Context()); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("stale file: %v", err)
	}
	second, err := api.Listen(api.SocketOptions{Path: path})
	if err != nil {
		t.Fatalf("the stale file was not replaced: %v", err)
	}
	// The first one's file is gone; it must not take the second one's along.
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the first daemon removed the second's socket: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(api.SocketOptions{Path: path}); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file that is no socket: %v", err)
	}
	if _, err := api.Listen(api.SocketOptions{Path: path + "2", Group: "siskin-no-such-group"}); err == nil || !strings.Contains(err.Error(), "groupadd") {
		t.Errorf("a group that is missing: %v", err)
	}
	if _, err := api.Listen(api.SocketOptions{Path: "/tmp/" + strings.Repeat("x", 100)}); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a path that is too long: %v", err)
	}
}
