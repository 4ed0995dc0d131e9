package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/api/apitest"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("any"), 1},
		{errSilent, 1},
		{fmt.Errorf("%w within 10s", api.ErrSilent), 1},
		{api.Problems{{Problem: "bad"}}, 1},
		{&api.StatusError{Status: 403, Message: "no"}, 1},
		{usage("what?"), 2},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), 4},
		{fmt.Errorf("dial: %w", api.ErrNoDaemon), 5},
		{errors.Join(errors.New("close"), fmt.Errorf("run: %w", loader.ErrLocked)), 6},
		{fmt.Errorf("listen: %w", api.ErrSocketInUse), 6},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestErrorsTakeOneLineEach(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errors.Join(errors.New("one"), errors.New("two")), "siskin: one; two\n"},
		{fmt.Errorf("apply: %w", api.Problems{{Place: api.Place{File: "f", Line: 2, Column: 3}, Field: "spec", Problem: "bad", Excerpt: "spec: x"},
			{Object: "service/a", Problem: "worse"}}), "f:2:3: spec: bad | spec: x\nsiskin: service/a: worse\n"},
		{&api.StatusError{Status: 422, Message: "m", Details: api.Problems{{Object: "service/a", Problem: "bad"}}}, "siskin: service/a: bad\n"},
		{&api.StatusError{Status: 500, Message: "broken"}, "siskin: broken\n"},
		{errSilent, ""},
	} {
		var b bytes.Buffer
		if report(&b, tc.err); b.String() != tc.want {
			t.Errorf("%v: got %q, want %q", tc.err, b.String(), tc.want)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 40: "40ns", 2 * time.Microsecond: "2µs", 210400: "210µs", 1234567: "1.2ms", 9960 * time.Microsecond: "10ms",
		999 * time.Millisecond: "999ms", 3400 * time.Millisecond: "3.4s", 301 * time.Second: "5m1s", 90 * time.Minute: "1h30m",
		49 * time.Hour: "2d1h",
	} {
		if got := human(d); got != want {
			t.Errorf("%d ns: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 5 << 20: "5MiB", 1 << 62: "4EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestColoursDoNotShiftColumns(t *testing.T) {
	plain := table{head: []string{"A", "B"}, rows: [][]string{{"µµµ", "1"}, {"x", "2"}}}
	tinted := plain
	tinted.tint = func(column int, cell string) string {
		if cell == "x" {
			return red
		}
		return ""
	}
	var p, c bytes.Buffer
	if err := errors.Join(plain.write(&p), tinted.write(&c)); err != nil {
		t.Fatal(err)
	}
	if want := "A    B\nµµµ  1\nx    2\n"; p.String() != want {
		t.Errorf("got %q, want %q", p.String(), want)
	}
	bare := strings.NewReplacer("\x1b[31m", "", "\x1b[0m", "").Replace(c.String())
	if bare != p.String() || !strings.Contains(c.String(), "\x1b[31mx\x1b[0m") {
		t.Errorf("coloured: %q", c.String())
	}
}

// watching runs a command that stays, and returns its lines and what ends it.
func watching(t *testing.T, fake *apitest.Control, args ...string) (lines *bufio.Scanner, end func() int) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	l, err := api.Listen(api.SocketOptions{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	s := api.NewServer(api.ServerOptions{Control: fake, Log: slog.New(slog.DiscardHandler), WatchInterval: time.Millisecond})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, append([]string{"--socket", socket}, args...), nil, w, t.Output())
		_ = w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		_ = r.Close()
		if err := errors.Join(s.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return bufio.NewScanner(r), func() int {
		cancel()
		_, _ = io.Copy(io.Discard, r)
		return <-code
	}
}

func next(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the output ended before %q: %v", want, lines.Err())
	}
	if !strings.Contains(lines.Text(), want) {
		t.Fatalf("got %q, want one with %q", lines.Text(), want)
	}
}

func TestWatchEventsUntilInterrupted(t *testing.T) {
	for output, form := range map[string]string{"table": "Normal   Changed", "json": `"reason":"Changed"`} {
		fake := fixture()
		fake.Emit("Changed", "service/a", "one")
		lines, end := watching(t, fake, "get", "events", "-w", "-o", output)
		next(t, lines, form)
		fake.Emit("Changed", "service/a", "two")
		next(t, lines, "two")
		if code := end(); code != 0 {
			t.Errorf("an interrupted watch exits with %d", code)
		}
	}
}

func TestWatchServicesShowsChanges(t *testing.T) {
	fake := apitest.New()
	apply(t, fake)
	lines, end := watching(t, fake, "get", "services", "-w", "-o", "json")
	next(t, lines, `"name":"canary","weight":"5%"`)
	if _, err := fake.SetWeights(t.Context(), "checkout", map[string]steering.Share{"canary": 2500}); err != nil {
		t.Fatal(err)
	}
	next(t, lines, `"name":"canary","weight":"25%"`)
	if code := end(); code != 0 {
		t.Errorf("an interrupted watch exits with %d", code)
	}

	lines, end = watching(t, fake, "get", "backends", "-w")
	next(t, lines, "SERVICE")
	next(t, lines, "10.1.0.2:8080")
	if code := end(); code != 0 {
		t.Errorf("an interrupted watch exits with %d", code)
	}
}

func TestWatchRequestsShowsEachInterval(t *testing.T) {
	fake := apitest.New()
	apply(t, fake)
	lines, end := watching(t, fake, "get", "requests", "checkout", "-w", "-o", "json")
	next(t, lines, `"endNs":1000000000,`)
	next(t, lines, `"endNs":2000000000,`)
	if code := end(); code != 0 {
		t.Errorf("an interrupted watch exits with %d", code)
	}
}

func TestWatchFlows(t *testing.T) {
	lines, end := watching(t, fixture(), "get", "flows", "-w", "-o", "json")
	next(t, lines, `"state":"established"`)
	next(t, lines, `"state":"established"`)
	if code := end(); code != 0 {
		t.Errorf("an interrupted watch exits with %d", code)
	}
}

func apply(t *testing.T, fake *apitest.Control) {
	t.Helper()
	docs, err := api.Read(api.Source{Name: "f", Data: []byte(`apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: checkout}
spec:
  frontends: ["198.18.0.10:80/tcp"]
  versions:
    stable: {backends: ["10.1.0.2:8080"]}
    canary: {backends: ["10.1.0.4:8080"]}
  weights: {canary: 5%}
`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fake.Apply(t.Context(), docs, false); err != nil {
		t.Fatal(err)
	}
}

func TestUninstallWaitsForNoDaemon(t *testing.T) {
	dir := t.TempDir()
	lock, err := loader.AcquireLock(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Release() }()
	var errOut bytes.Buffer
	code := execute(t.Context(), []string{"uninstall", "--state-dir", dir, "--bpffs", filepath.Join(dir, "none")}, nil, io.Discard, &errOut)
	if code != exitLocked || !strings.Contains(errOut.String(), "stop that one first") {
		t.Errorf("exit code %d: %s", code, &errOut)
	}
}

func TestRemoveStateLeavesWhatIsNotOurs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	names := []string{"state.json", "state.json.corrupt-20260101T000000Z", "lock", "notes.txt"}
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := removeState(dir); n != 2 || err != nil {
		t.Errorf("removed %d files, %v; want 2", n, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "notes.txt" {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.Remove(filepath.Join(dir, "notes.txt")); err != nil {
		t.Fatal(err)
	}
	if _, err := removeState(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty directory is still there: %v", err)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	a := &app{out: io.Discard, err: io.Discard}
	list := a.root().Commands()
	for len(list) > 0 {
		c := list[0]
		list = append(list[1:], c.Commands()...)
		if slices.Contains([]string{"help"}, c.Name()) {
			continue
		}
		if c.Long == "" || c.Example == "" || c.Short == "" {
			t.Errorf("%s has no explanation or no example", c.CommandPath())
		}
	}
}

// No line of a live view takes two rows, and no word of a reason is lost.
func TestReleaseTreeFits(t *testing.T) {
	reason := "judged worse: 3 of 17 canary requests failed (3 clients; [2001:db8:1::4]:8080 3) against 0 of 286 of stable; evidence 447 ≥ 100"
	r := api.ReleaseView{Name: "checkout-v3", Phase: "RolledBack", Version: "canary", Services: []string{"checkout"}, Reason: reason,
		Changed: &api.Moment{Time: time.Unix(0, 0)}, Steps: []api.ReleaseStep{{Weight: 500}}}
	for _, columns := range []int{60, 70, 160} {
		var why []string
		for _, line := range releaseTree(r, time.Unix(90, 0), false, columns) {
			if n := utf8.RuneCountInString(line); n > columns {
				t.Errorf("%d columns are taken of %d by %q", n, columns, line)
			}
			if strings.Contains(line, "since") {
				break
			}
			why = append(why, strings.TrimSpace(strings.TrimLeft(strings.TrimPrefix(line, "├ why"), "│ ")))
		}
		if got := strings.Join(why[1:], " "); got != reason {
			t.Errorf("at %d columns the reason is %q", columns, got)
		}
	}
}
