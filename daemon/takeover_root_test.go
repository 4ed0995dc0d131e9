package daemon_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/daemon"
)

// fill takes all the room of the disk that dir is on, and returns the way to
// give it back.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 4096; size > 0; {
		switch _, err := f.Write(make([]byte, size)); {
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// count counts the events of a reason.
func (b *bed) count(reason string) (n int) {
	b.t.Helper()
	events, err := b.client.Events(b.t.Context(), 0)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range events {
		if e.Reason == reason {
			n++
		}
	}
	return n
}

// The day on which the disk is full is a day for rollbacks, too.
func TestRootStartsOnAFullDisk(t *testing.T) {
	b := newBed(t)
	dir := b.options().StateDir
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := b.file(shop)
	given := func(o *daemon.Options) { o.Files = []string{path} }
	p := b.launch(given)
	p.end(syscall.SIGKILL)
	empty := fill(t, dir)

	b.file(strings.Replace(shop, "5%", "25%", 1))
	p = b.launch(given)
	if want := "siskin: steering 1 service on up0, pod0"; p.line != want {
		t.Fatalf("it said %q, want %q", p.line, want)
	}
	if got := b.canary(); got != 2500 {
		t.Errorf("the canary has %s, want the file's 25%%", got)
	}
	if _, err := b.client.Rollback(t.Context(), nil, true); err != nil {
		t.Errorf("rollback: %v", err)
	}
	if got := b.canary(); got != 0 {
		t.Errorf("after a rollback the canary has %s, want 0%%", got)
	}
	if n := b.count("SaveFailed"); n != 1 {
		t.Errorf("%d events tell of the full disk, want 1", n)
	}
	state := filepath.Join(dir, "state.json")
	if raw, err := os.ReadFile(state); err != nil || strings.Contains(string(raw), `"25%"`) {
		t.Fatalf("the disk was not full: %s, %v", raw, err)
	}
	empty()
	b.await("state file with the new document", func() bool {
		raw, err := os.ReadFile(state)
		return err == nil && strings.Contains(string(raw), `"25%"`)
	})
	if n := b.count("SaveFailed"); n != 1 {
		t.Errorf("%d events tell of the full disk, want 1", n)
	}
	p.end(syscall.SIGKILL)
	b.launch()
	s, err := b.client.Service(t.Context(), "shop")
	if err != nil || b.canary() != 0 {
		t.Errorf("after the next start: %+v, %v; want it rolled back", s, err)
	}
}

// A wrong file takes nobody's way back: with something applied before, the
// daemon starts without the file.
func TestRootStartsWithoutWrongFiles(t *testing.T) {
	b := newBed(t)
	path := b.file("kind: Nonsense\n")
	given := func(o *daemon.Options) { o.Files = []string{path} }
	refuse := func(why string) {
		t.Helper()
		if p := b.launch(given); p.line != "" || p.end(syscall.SIGKILL) != 1 {
			t.Errorf("%s, with nothing before: it said %q, want an error", why, p.line)
		}
		b.wantHooked("up0", 0)
	}
	refuse("a wrong file")
	twice := shop + "---" + strings.Replace(shop, "name: shop", "name: other", 1)
	b.file(twice)
	refuse("files that do not fit together")

	p := b.launch()
	b.apply(shop, false)
	b.setCanary(1000)
	p.end(syscall.SIGKILL)
	state := filepath.Join(b.options().StateDir, "state.json")
	for _, tc := range []struct {
		why, text string
		kernel    bool // nothing but the kernel knows what was applied
	}{
		{"a wrong file", "kind: Nonsense\n", false},
		{"a frontend of another service", strings.Replace(shop, "name: shop", "name: other", 1), false},
		{"a wrong file and no state file", "kind: Nonsense\n", true},
	} {
		b.file(tc.text)
		if tc.kernel {
			if err := os.Remove(state); err != nil {
				t.Fatal(err)
			}
		}
		p := b.launch(given)
		if want := "siskin: steering 1 service on up0, pod0"; p.line != want {
			t.Fatalf("%s: it said %q, want %q", tc.why, p.line, want)
		}
		if n := b.count("FilesRefused"); n != 1 {
			t.Errorf("%s: %d events tell of it, want 1", tc.why, n)
		}
		if got := b.canary(); got != 1000 {
			t.Errorf("%s: the canary has %s, want the 10%% from before", tc.why, got)
		}
		p.end(syscall.SIGKILL)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	b.launch(given)
	if _, err := b.client.Rollback(t.Context(), nil, true); err != nil || b.canary() != 0 {
		t.Errorf("rollback without the file: %v, canary %s", err, b.canary())
	}
}
