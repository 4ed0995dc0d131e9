package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// Removed counts what Uninstall took away.
type Removed struct {
	Links   int // tcx links detached
	Filters int // clsact filters removed
	Maps    int // maps unpinned
}

// Uninstall removes everything that siskin left in the kernel: the links and
// maps pinned below bpffs by any build, our filters on the interfaces of this
// network namespace, and the directory. What is not ours stays. It needs no
// daemon and refuses to work under a running one (ErrLocked). It goes on after
// an error and returns all of them; running it again is no error.
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
		links, err := list(filepath.Join(dir, "links"))
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
		maps, err := list(filepath.Join(dir, "maps"))
		errs = append(errs, err)
		n.Maps += len(maps)
		errs = append(errs, os.RemoveAll(dir))
	}
	// Somebody else's file in there keeps the directory, and is theirs.
	if err := os.Remove(bpffs); err != nil && !errors.Is(err, fs.ErrNotExist) && len(versions) > 0 {
		errs = append(errs, fmt.Errorf("remove the directory for pins: %w", err))
	}
	return n, errors.Join(errs...)
}

// lock locks the directory for pins; nil when there is none.
func (p pins) lock() (*Lock, error) {
	_, err := os.Stat(p.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", p.root, err)
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
