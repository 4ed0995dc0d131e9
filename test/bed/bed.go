// Package bed lays out networks for end-to-end tests: network namespaces with
// real servers and clients in them, and the siskin binary as a black box.
//
// Every bed has names of its own, so beds may exist at the same time, and
// takes everything away when its test ends, also when the test fails. What a
// killed test process left behind, the next bed removes.
package bed

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	prefix  = "skbed" // of every namespace name, followed by pid, number and role
	runDir  = "/run/netns"
	tempDir = "siskin-bed-"
)

// Bed is the place of one test: its namespaces, its BPF file system and its
// directory for state and sockets.
type Bed struct {
	Dir   string // temporary; short, since socket paths are limited to 107 bytes
	BPFFS string // an own mount of the BPF file system
	Rand  *rand.Rand

	tb     testing.TB
	number int64
	spaces map[string]*Namespace
}

// New makes an empty bed. It skips the test where it is not run by root, and
// logs the seed of b.Rand; SISKIN_SEED sets it.
func New(tb testing.TB) *Bed {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: makes network namespaces")
	}
	sweepLeftovers(tb)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SISKIN_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			tb.Fatalf("SISKIN_SEED: %v", err)
		}
	}
	tb.Logf("seed %d", seed)
	dir, err := TempDir()
	if err != nil {
		tb.Fatal(err)
	}
	b := &Bed{
		Dir:    dir,
		BPFFS:  filepath.Join(dir, "bpf"),
		Rand:   rand.New(rand.NewPCG(seed, 0)),
		tb:     tb,
		number: numbers.Add(1),
		spaces: map[string]*Namespace{},
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("remove the bed's directory: %v", err)
		}
	})
	b.mountBPF()
	return b
}

// numbers keeps the beds of one test process apart.
var numbers atomic.Int64

func (b *Bed) mountBPF() {
	b.tb.Helper()
	if err := os.Mkdir(b.BPFFS, 0o700); err != nil {
		b.tb.Fatalf("make the mount point: %v", err)
	}
	if err := unix.Mount("bpf", b.BPFFS, "bpf", 0, ""); err != nil {
		b.tb.Fatalf("mount a BPF file system on %s: %v", b.BPFFS, err)
	}
	b.tb.Cleanup(func() {
		if err := unix.Unmount(b.BPFFS, unix.MNT_DETACH); err != nil {
			b.tb.Errorf("unmount %s: %v", b.BPFFS, err)
		}
	})
}

// TempDir makes a directory that the caller removes, or a later bed if the
// caller is killed.
func TempDir() (string, error) {
	dir, err := os.MkdirTemp("", tempDir+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the test: %w", err)
	}
	return dir, nil
}

// Path is the path of a file in the bed's directory.
func (b *Bed) Path(name string) string { return filepath.Join(b.Dir, name) }

// Write writes a file in the bed's directory and returns its path.
func (b *Bed) Write(name, content string) string {
	b.tb.Helper()
	path := b.Path(name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		b.tb.Fatalf("write %s: %v", name, err)
	}
	return path
}

// sweepLeftovers removes namespaces and directories of test processes that
// are gone: a test that is killed or runs into its time limit cleans nothing.
func sweepLeftovers(tb testing.TB) {
	entries, err := os.ReadDir(runDir)
	if err != nil && !os.IsNotExist(err) {
		tb.Fatalf("look for leftovers: %v", err)
	}
	for _, e := range entries {
		if rest, ours := strings.CutPrefix(e.Name(), prefix); ours && ownerIsGone(rest) {
			if err := netns.DeleteNamed(e.Name()); err != nil {
				tb.Logf("remove the leftover namespace %s: %v", e.Name(), err)
			}
		}
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), tempDir+"*"))
	if err != nil {
		tb.Fatalf("look for leftovers: %v", err)
	}
	for _, dir := range dirs {
		rest := strings.TrimPrefix(filepath.Base(dir), tempDir)
		if !ownerIsGone(rest) {
			continue
		}
		// Not mounted is the usual case: EINVAL says nothing.
		_ = unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH)
		if err := os.RemoveAll(dir); err != nil {
			tb.Logf("remove the leftover directory %s: %v", dir, err)
		}
	}
}

// ownerIsGone tells whether a name that starts with a process id belongs to a
// process that has ended.
func ownerIsGone(name string) bool {
	digits, _, found := strings.Cut(name, "-")
	pid, err := strconv.Atoi(digits)
	if !found || err != nil {
		return false
	}
	_, err = os.Stat(fmt.Sprintf("/proc/%d", pid))
	return os.IsNotExist(err)
}
