package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/metrics"
)

// A backend whose id was another's begins at 0 in everything that is counted by
// id, and takes nothing from its neighbours.
func TestRootNewBackendCountsFromZero(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `sudo -E make test-root`")
	}
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l, err := loader.Open(loader.Options{
		BPFFS: filepath.Join(dir, "siskin"),
		Sizes: loader.Sizes{Flows: 512, Backends: 64, Frontends: 16, Services: 16, Versions: 16, Words: 16, Maglev: 4096},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	cpus := ebpf.MustPossibleCPU()
	d := &daemon{loader: l}
	for id := uint32(4); id <= 6; id++ {
		tallies, heard := make([]bpf.Tally, cpus), make([]bpf.Answers, cpus)
		for i := range cpus {
			tallies[i].Opened = 7
			heard[i].Of[bpf.Answer5xx] = 9
		}
		if err := errors.Join(l.Map("counters").Put(id, tallies), l.Map("requests").Put(id, heard)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.resetCounters(5, cpus); err != nil {
		t.Fatal(err)
	}
	snap, err := d.read(metrics.Wanted{Backends: []uint32{4, 5, 6}})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[uint32]uint64{4: 1, 5: 0, 6: 1} {
		opened, failed := snap.Backends[id].Opened, snap.Requests[id].Of[bpf.Answer5xx]
		if opened != 7*want*uint64(cpus) || failed != 9*want*uint64(cpus) {
			t.Errorf("backend %d has %d connections and %d answers of 5xx", id, opened, failed)
		}
	}
}
