package loader_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/loader"
)

// pinStrange pins a map that siskin did not make, and removes it at the end.
func pinStrange(t *testing.T, path string) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "strange", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Pin(path), m.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// A directory that only looks like one with pins must survive a mistyped
// --bpffs, and so must a file.
func TestRootUninstallRefusesWhatCannotHoldPins(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	files := []string{"v1/handler.go", "v1/maps/conns", "v1/links/2-ingress", "v7/deep/er"}
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("precious"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	empty, pin := t.TempDir(), b.bpffs+"-strange"
	pinStrange(t, pin)
	for path, want := range map[string]string{
		dir:                                    "no bpf filesystem at " + dir,
		empty:                                  "no bpf filesystem at " + empty,
		filepath.Join(dir, files[0]):           "is not a directory",
		pin:                                    "is not a directory",
		filepath.Join(dir, files[0], "siskin"): "not a directory",
	} {
		n, err := loader.Uninstall(path)
		if err == nil || !strings.Contains(err.Error(), want) || n != (loader.Removed{}) {
			t.Errorf("uninstall %s: %+v, %v; want it to say %q", path, n, err, want)
		}
	}
	if _, err := loader.Uninstall(dir); !errors.Is(err, loader.ErrNoBPFFS) {
		t.Errorf("uninstall outside a bpf filesystem: %v, want ErrNoBPFFS", err)
	}
	for _, name := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != "precious" {
			t.Errorf("%s holds %q, %v after uninstall", name, got, err)
		}
	}
	for _, path := range []string{empty, pin} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("uninstall took something else away: %v", err)
		}
	}
	if _, err := loader.Uninstall(filepath.Join(dir, "never", "was")); err != nil {
		t.Errorf("uninstall where nothing is: %v", err)
	}
}

// What siskin did not make stays in its directories, and is named.
func TestRootUninstallLeavesWhatIsUnknown(t *testing.T) {
	b := newBed(t)
	b.veth("up0")
	l := b.open()
	attach(t, l, "up0")
	maps := len(mapIDs(t, l))
	closeLoader(t, l)
	version := filepath.Join(b.bpffs, layout)
	half := filepath.Join(version, "maps-new") // of a start that died half-way
	sub := filepath.Join(version, "maps", "theirs")
	other := filepath.Join(version, "other")
	for _, dir := range []string{half, sub, other} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	pinStrange(t, filepath.Join(half, "conns"))
	// Otherwise a symbolic link would lead to what is not below the directory.
	outside := filepath.Join(filepath.Dir(b.bpffs), "outside")
	away := filepath.Join(b.bpffs, "v9")
	if err := errors.Join(os.Mkdir(outside, 0o700), os.Mkdir(away, 0o700), os.Symlink(outside, filepath.Join(away, "maps"))); err != nil {
		t.Fatal(err)
	}
	pinStrange(t, filepath.Join(outside, "map"))
	strange := []string{filepath.Join(sub, "map"), filepath.Join(version, "top")}
	for _, path := range strange {
		pinStrange(t, path)
	}

	n, err := loader.Uninstall(b.bpffs)
	left := append(strange, other, filepath.Join(away, "maps"))
	for _, path := range left {
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name %s: %v", path, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("uninstall took something else away: %v", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(outside, "map")); err != nil {
		t.Errorf("uninstall followed a symbolic link: %v", err)
	}
	if n.Links+n.Filters != 2 || n.Maps != maps+1 {
		t.Errorf("removed %+v, want 2 hooks and %d maps", n, maps+1)
	}
	for _, path := range []string{half, filepath.Join(version, "links")} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	for _, path := range append(left, sub) {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := loader.Uninstall(b.bpffs); err != nil {
		t.Errorf("uninstall once they are gone: %v", err)
	}
	if _, err := os.Lstat(b.bpffs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory for pins is still there: %v", err)
	}
}
