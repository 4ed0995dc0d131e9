package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CheckBPFFS says whether pins can be made below dir: dir, or the nearest
// parent that exists, must lie on a bpf filesystem. Otherwise the error wraps
// ErrNoBPFFS and says what to mount.
func CheckBPFFS(dir string) error {
	at := filepath.Clean(dir)
	for {
		var st unix.Statfs_t
		err := unix.Statfs(at, &st)
		switch {
		case err == nil && st.Type == unix.BPF_FS_MAGIC:
			return nil
		case err == nil:
			mount := filepath.Dir(filepath.Clean(dir))
			return fmt.Errorf("%w at %s: run `mount -t bpf bpf %s` (and put it in /etc/fstab), or name another directory with --bpffs",
				ErrNoBPFFS, mount, mount)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look at %s: %w", at, err)
		}
		if at == filepath.Dir(at) {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		at = filepath.Dir(at)
	}
}

// CheckPrivileges returns an error that wraps ErrPrivileges when the process
// lacks a capability that loading and attaching need.
func CheckPrivileges() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
	for _, c := range []struct {
		bit  int
		name string
		// admin: before Linux 5.8 this was part of CAP_SYS_ADMIN, which still
		// implies it.
		admin bool
	}{
		{unix.CAP_BPF, "CAP_BPF", true},
		{unix.CAP_PERFMON, "CAP_PERFMON", true},
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", false},
	} {
		if !has(c.bit) && !(c.admin && has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, c.name)
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%w: %s; run it as root, or give the binary CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
		ErrPrivileges, strings.Join(missing, ", "))
}

// refuseOthers returns an error when a build with another layout steers by
// this directory: its hooks would go on beside ours, on maps of their own.
func (p pins) refuseOthers(log *slog.Logger) error {
	versions, err := p.versions()
	if err != nil {
		return err
	}
	for _, dir := range versions {
		if dir == p.version() {
			continue
		}
		live, err := anyLive(filepath.Join(dir, "links"))
		if err != nil {
			return err
		}
		if !live {
			if live, err = p.othersFilter(filepath.Join(dir, "maps")); err != nil {
				return err
			}
		}
		if live {
			return fmt.Errorf("%w: %s is in use by a build with another map layout (this one has v%d); "+
				"run `siskin uninstall` first, or start the build that made it", ErrLayout, dir, LayoutVersion)
		}
		log.Warn("another build left pins that steer nothing; `siskin uninstall` removes them", "directory", dir)
	}
	return nil
}

// versions lists the directories that builds of siskin made.
func (p pins) versions() ([]string, error) {
	entries, err := os.ReadDir(p.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var out []string
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "v")
		if e.IsDir() && ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
			out = append(out, filepath.Join(p.root, e.Name()))
		}
	}
	return out, nil
}

// anyLive tells whether a link pinned in dir is attached.
func anyLive(dir string) (bool, error) {
	names, err := list(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		ln, err := link.LoadPinnedLink(name, nil)
		if err != nil {
			return false, fmt.Errorf("open pinned link %s: %w", name, err)
		}
		ifindex, err := ifindexOf(ln)
		if cerr := ln.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return false, err
		}
		if ifindex != 0 {
			return true, nil
		}
	}
	return false, nil
}

// othersFilter tells whether there are filters of ours in this network namespace
// that must belong to the build that pinned maps in dir, because this layout
// has none pinned. Asking the filters' programs would take CAP_SYS_ADMIN.
func (p pins) othersFilter(dir string) (bool, error) {
	theirs, err := list(dir)
	if err != nil || len(theirs) == 0 {
		return false, err
	}
	mine, err := list(p.maps())
	if err != nil || len(mine) > 0 {
		return false, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return false, fmt.Errorf("list interfaces: %w", err)
	}
	for _, ifi := range links {
		found, err := filtersOf(ifi)
		if err != nil || len(found) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// removeTemporary removes what a process that died half-way has left.
func (p pins) removeTemporary() error {
	var errs []error
	links, err := list(p.links())
	errs = append(errs, err)
	for _, name := range links {
		if strings.HasSuffix(name, temporary) {
			errs = append(errs, os.Remove(name))
		}
	}
	errs = append(errs, os.RemoveAll(p.maps()+temporary))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove half-made pins: %w", err)
	}
	return nil
}

// list returns the paths in dir; none when it does not exist.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = filepath.Join(dir, e.Name())
	}
	return out, nil
}

func closeMaps(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}
