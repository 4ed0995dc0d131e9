package history

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/rollout"
)

// disk mounts a small tmpfs that only this test can see: in the mount namespace
// of one thread, reached by a descriptor from all others.
func disk(t *testing.T, options string) (dir string, remount func(flags uintptr)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small disk")
	}
	type place struct {
		fd  int
		err error
	}
	mounted, again, done := make(chan place), make(chan uintptr), make(chan error)
	target := t.TempDir()
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		fd, err := func() (int, error) {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return 0, fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return 0, fmt.Errorf("make mounts private: %w", err)
			}
			if err := unix.Mount("tmpfs", target, "tmpfs", 0, options); err != nil {
				return 0, fmt.Errorf("mount: %w", err)
			}
			return unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}()
		mounted <- place{fd, err}
		for flags := range again {
			done <- unix.Mount("none", target, "", unix.MS_REMOUNT|flags, options)
		}
	}()
	p := <-mounted
	if p.err != nil {
		t.Fatal(p.err)
	}
	t.Cleanup(func() { close(again); _ = unix.Close(p.fd) })
	return fmt.Sprintf("/proc/self/fd/%d", p.fd), func(flags uintptr) {
		t.Helper()
		again <- flags
		if err := <-done; err != nil {
			t.Fatalf("remount: %v", err)
		}
	}
}

func TestRootAFullDiskKeepsTheLastGoodState(t *testing.T) {
	dir, _ := disk(t, "size=512k")
	path := filepath.Join(dir, "releases.db")
	s, e := open(t, path, Options{})
	s.Save("a", state(rollout.Paused), decision(1))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = ballast.Write(make([]byte, 512))
	}
	// Enough that the file must grow.
	big := state(rollout.RolledBack)
	big.Reason = strings.Repeat("x", 200<<10)
	s.Save("a", big, decision(2))
	if err := s.Flush(); err == nil {
		t.Fatal("written on a full disk")
	}
	if e.count(Failing) != 1 || e.count(Damaged) != 0 || s.States()["a"].Phase != rollout.RolledBack || len(decisions(t, s, "a", 0)) != 2 {
		t.Fatalf("told %q, state %s", e.heard, s.States()["a"].Phase)
	}
	// Who starts now finds the last state that fitted.
	copied := filepath.Join(t.TempDir(), "copy.db")
	raw, err := os.ReadFile(path)
	if err != nil || os.WriteFile(copied, raw, 0o600) != nil {
		t.Fatal(err)
	}
	if other, heard := open(t, copied, Options{}); other.States()["a"].Phase != rollout.Paused || len(heard.heard) != 0 {
		t.Errorf("on disk: %+v, told %q", other.States(), heard.heard)
	}
	if err := os.Remove(ballast.Name()); err != nil {
		t.Fatal(err)
	}
	if err := ballast.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if e.count(Recovers) != 1 {
		t.Errorf("told %q", e.heard)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if again, _ := open(t, path, Options{}); again.States()["a"].Phase != rollout.RolledBack || len(decisions(t, again, "a", 0)) != 2 {
		t.Errorf("after the restart: %+v", again.States()["a"].Phase)
	}
}

func TestRootAReadOnlyDiskStopsNothing(t *testing.T) {
	dir, remount := disk(t, "size=4m")
	path := filepath.Join(dir, "releases.db")
	s, _ := open(t, path, Options{})
	s.Save("a", state(rollout.Paused), decision(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	remount(unix.MS_RDONLY)
	s, e := open(t, path, Options{})
	if e.count(Failing) != 1 || e.count(Damaged) != 0 || s.States()["a"].Phase != rollout.Paused || s.Lost() {
		t.Fatalf("told %q, states %+v", e.heard, s.States())
	}
	s.Save("b", state(rollout.Progressing), decision(2))
	if err := s.Flush(); err == nil {
		t.Fatal("written on a disk that is read only")
	}
	remount(0)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := s.States(); len(got) != 2 || e.count(Recovers) != 1 {
		t.Errorf("%d states, told %q", len(got), e.heard)
	}
}
