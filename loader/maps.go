package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// flowMaps name each other's entries: a part of them without the rest would
// hand out slots that are taken.
func flowMaps() []string { return []string{"aging", "aliases", "flow_index", "flows", "vacant"} }

// lasting tells whether a map is pinned. The compiler's own sections (.rodata)
// belong to one build and are made anew.
func lasting(name string) bool { return !strings.HasPrefix(name, ".") }

// openMaps opens the pinned maps and sets the spec's sizes to theirs. A map
// that is not there, since the build before had none, is left for the loader to
// make, as large as its like.
func (p pins) openMaps(spec *ebpf.CollectionSpec, log *slog.Logger) (_ map[string]*ebpf.Map, err error) {
	found := make(map[string]*ebpf.Map)
	defer func() {
		if err != nil {
			closeMaps(found)
		}
	}()
	for name, ms := range spec.Maps {
		if !lasting(name) {
			continue
		}
		path := filepath.Join(p.maps(), name)
		m, err := ebpf.LoadPinnedMap(path, nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open pinned map %s: %w", path, err)
		}
		found[name] = m
		if ms.MaxEntries != m.MaxEntries() {
			log.Info("a pinned map keeps its size; `siskin uninstall` first would let it change",
				"map", name, "entries", m.MaxEntries(), "wanted", ms.MaxEntries)
			ms.MaxEntries = m.MaxEntries()
		}
		if err := ms.Compatible(m); err != nil {
			return nil, fmt.Errorf("%w: %s: %w; run `siskin uninstall` first, or start the build that made it",
				ErrLayout, path, err)
		}
	}
	follow(spec, found)
	return found, checkComplete(found, p.maps())
}

// checkComplete refuses a flow table of which a part is gone.
func checkComplete(found map[string]*ebpf.Map, dir string) error {
	var there, gone []string
	for _, name := range flowMaps() {
		if found[name] != nil {
			there = append(there, name)
		} else {
			gone = append(gone, name)
		}
	}
	if len(there) == 0 || len(gone) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s has %s but not %s, somebody removed them; run `siskin uninstall` and start again",
		ErrLayout, dir, strings.Join(there, ", "), strings.Join(gone, ", "))
}

// pinMaps pins what is not pinned yet. The first time all maps appear in one
// rename, so that no crash leaves a part of them.
func (p pins) pinMaps(maps map[string]*ebpf.Map) error {
	dir := p.maps()
	_, err := os.Stat(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		dir += temporary
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make the directory for maps: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("look at pinned maps: %w", err)
	}
	for name, m := range maps {
		if !lasting(name) {
			continue
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := m.Pin(path); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	if fresh {
		if err := os.Rename(dir, p.maps()); err != nil {
			return fmt.Errorf("put the pinned maps in force: %w", err)
		}
	}
	return nil
}

// repinMaps pins again what somebody unpinned, and returns its names.
func (p pins) repinMaps(maps map[string]*ebpf.Map) ([]string, error) {
	var names []string
	var errs []error
	for name, m := range maps {
		if !lasting(name) {
			continue
		}
		path := filepath.Join(p.maps(), name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.MkdirAll(p.maps(), 0o700); err != nil {
			return names, fmt.Errorf("make the directory for maps: %w", err)
		}
		// The handle remembers its old name, which is gone: pin a copy.
		if err := pinCopy(m, path); err != nil {
			errs = append(errs, err)
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, errors.Join(errs...)
}

func pinCopy(m *ebpf.Map, path string) error {
	c, err := m.Clone()
	if err != nil {
		return fmt.Errorf("pin map again: %w", err)
	}
	if err := c.Pin(path); err != nil {
		return errors.Join(fmt.Errorf("pin map again: %w", err), c.Close())
	}
	return c.Close()
}
