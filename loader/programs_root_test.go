package loader

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// openAlone opens a loader on a bpf filesystem of the test's own.
func openAlone(t *testing.T) *Loader {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `sudo -E make test-root`")
	}
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	l, err := Open(Options{
		BPFFS: filepath.Join(dir, "siskin"), PortMin: 61017, PortMax: 61080,
		Sizes: Sizes{Flows: 512, Backends: 64, Frontends: 16, Services: 16, Versions: 16, Words: 16, Maglev: 4096},
	})
	t.Cleanup(func() {
		var cerr error
		if l != nil {
			cerr = l.Close()
		}
		if err := errors.Join(cerr, unix.Unmount(dir, 0)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l
}

// Whatever object a program is from, it works on the maps that are pinned.
func TestRootProgramsShareTheMaps(t *testing.T) {
	l := openAlone(t)
	mine := make(map[ebpf.MapID]string)
	for name, m := range l.Maps() {
		mine[mapID(t, m)] = name
	}
	if l.programs[xdpProgram] != nil {
		t.Error("the program for XDP was loaded before anybody asked for it")
	}
	for _, name := range []string{ingress.program(true), xdpProgram} {
		p, err := l.program(name)
		if err != nil {
			t.Fatalf("load %s: %v", name, err)
		}
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		ids, _ := info.MapIDs()
		shared := 0
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if err != nil {
				t.Fatal(err)
			}
			own, err := m.Info()
			if cerr := m.Close(); err != nil || cerr != nil {
				t.Fatal(err, cerr)
			}
			switch {
			case mine[id] != "":
				shared++
			case !strings.Contains(own.Name, ".rodata"):
				t.Errorf("%s works on a map %s of its own", name, own.Name)
			}
		}
		if shared == 0 {
			t.Errorf("%s shares no map: it has %v, the loader %v", name, ids, mine)
		}
	}
}

// The constants are set in both objects.
func TestRootPortsInEveryObject(t *testing.T) {
	l := openAlone(t)
	for name, read := range map[string]func() (*ebpf.CollectionSpec, error){"tc": bpf.Spec, "XDP": bpf.XDPSpec} {
		spec, err := l.spec(read)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var first, last uint16
		if err := errors.Join(spec.Variables["port_min"].Get(&first), spec.Variables["port_max"].Get(&last)); err != nil {
			t.Fatal(err)
		}
		if first != 61017 || last != 61080 {
			t.Errorf("%s: ports %d-%d, want 61017-61080", name, first, last)
		}
		if n := spec.Maps["flows"].MaxEntries; n != 512 {
			t.Errorf("%s: %d flows, want 512", name, n)
		}
	}
}

func mapID(t *testing.T, m *ebpf.Map) ebpf.MapID {
	t.Helper()
	info, err := m.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, ok := info.ID()
	if !ok {
		t.Fatal("the kernel gives maps no ids")
	}
	return id
}
