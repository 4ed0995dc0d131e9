package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Removed counts what Uninstall took away.
type Removed struct {
	Links   int // tcx and XDP links detached
	Filters int // clsact filters removed
	Maps    int // maps unpinned
}

// Uninstall removes everything that siskin left in the kernel: the links and
// maps pinned below bpffs by any build, our filters on the interfaces of this
// network namespace, and the directory. What is not ours stays, and is named in
// the error when it keeps a directory of ours. It needs no daemon and refuses
// to work under a running one (ErrLocked), on what is no directory, and outside
// a bpf filesystem (ErrNoBPFFS). It goes on after an error and returns all of
// them; running it again is no error.
func Uninstall(bpffs string) (Removed, error) {
	var n Removed
	if bpffs == "" {
		bpffs = DefaultBPFFS
	}
	if err := CheckPrivileges(); err != nil {
		return n, err
	}
	p := pins{root: bpffs}
	lock, err := p.lock()
	if err != nil {
		return n, err
	}
	if lock != nil {
		defer lock.Release()
	}
	var errs []error
	// Programs first: a map that goes under a running program would only
	// stay until its last reference is gone, and steer until then.
	versions, err := p.versions()
	errs = append(errs, err)
	for _, dir := range versions {
		links, err := pinned(filepath.Join(dir, "links"))
		errs = append(errs, err)
		for _, path := range links {
			removed, err := removeLink(path)
			errs = append(errs, err)
			if removed {
				n.Links++
			}
		}
	}
	n.Filters, err = removeAllFilters()
	errs = append(errs, err)
	for _, dir := range versions {
		maps, err := removeVersion(dir)
		errs = append(errs, err)
		n.Maps += maps
	}
	if err := removeRoot(bpffs); err != nil && len(versions) > 0 {
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

// removeVersion removes the maps that one build pinned, and its directories
// once they are empty. It removes by name only what builds of siskin make: the
// directory may hold more than we know.
func removeVersion(dir string) (removed int, err error) {
	maps := filepath.Join(dir, "maps")
	var errs []error
	for _, sub := range []string{maps, maps + temporary} {
		pins, err := pinned(sub)
		errs = append(errs, err)
		for _, path := range pins {
			if err := os.Remove(path); err != nil {
				errs = append(errs, fmt.Errorf("remove a pinned map: %w", err))
				continue
			}
			removed++
		}
	}
	for _, sub := range []string{maps, maps + temporary, filepath.Join(dir, "links")} {
		_ = unix.Rmdir(sub) // one that stays is named below
	}
	err = unix.Rmdir(dir)
	switch {
	case errors.Is(err, unix.ENOTEMPTY):
		left, err := leaves(dir)
		errs = append(errs, err, leftError(dir, left))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		errs = append(errs, fmt.Errorf("remove %s: %w", dir, err))
	}
	return removed, errors.Join(errs...)
}

// removeRoot removes the directory for pins, unless it holds something or is
// where the filesystem is mounted.
func removeRoot(root string) error {
	err := unix.Rmdir(root)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EBUSY):
		return nil
	case errors.Is(err, unix.ENOTEMPTY):
		left, err := list(root)
		return errors.Join(err, leftError(root, left))
	}
	return fmt.Errorf("remove the directory for pins %s: %w", root, err)
}

func leftError(dir string, left []string) error {
	return fmt.Errorf("%s stays, for siskin does not remove what it did not make: look at %s, and remove them yourself",
		dir, strings.Join(left, ", "))
}

// pinned returns the pins in dir: its plain files. A name that is no directory
// has none; neither has one that a symbolic link leads to, as siskin makes no
// such links.
func pinned(dir string) ([]string, error) {
	st, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// leaves returns the paths below dir that keep it: files and empty directories.
func leaves(dir string) (out []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if in, err := os.ReadDir(path); err != nil || len(in) > 0 {
				return err
			}
		}
		out = append(out, path)
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("list what is left: %w", err)
	}
	return out, nil
}

// lock locks the directory for pins; nil when there is none. What cannot be
// one is refused: nothing in there would be ours.
func (p pins) lock() (*Lock, error) {
	st, err := os.Stat(p.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", p.root, err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("uninstall: %s is not a directory: name the one that the daemon was given with --bpffs", p.root)
	}
	if err := CheckBPFFS(p.root); errors.Is(err, ErrNoBPFFS) {
		return nil, fmt.Errorf("uninstall: %w at %s, so siskin pinned nothing there: name the directory that the daemon was given with --bpffs",
			ErrNoBPFFS, p.root)
	} else if err != nil {
		return nil, err
	}
	lock, err := AcquireLock(p.root)
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("uninstall: a daemon is running and would attach again; stop it first: %w", err)
	}
	return lock, err
}

func removeAllFilters() (int, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list interfaces: %w", err)
	}
	n := 0
	var errs []error
	for _, ifi := range links {
		removed, err := removeFilters(ifi.Attrs().Index)
		errs = append(errs, err)
		n += removed
	}
	return n, errors.Join(errs...)
}
