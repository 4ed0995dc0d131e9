package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// linkHook is a program held by a pinned link: of tcx, or of XDP.
type linkHook struct {
	link    link.Link
	id      link.ID
	ifindex int
	dir     direction
	pin     string // its name when in force
	fresh   bool   // made by this process, not in force yet
}

func (d direction) attachType() ebpf.AttachType {
	switch d {
	case ingress:
		return ebpf.AttachTCXIngress
	case driver:
		return ebpf.AttachXDP
	}
	return ebpf.AttachTCXEgress
}

// attachLink makes a link, which is gone with its file descriptor until it is
// pinned.
func attachLink(ifindex int, d direction, p *ebpf.Program) (link.Link, error) {
	if d == driver {
		// In no other mode: the generic one is slower than tc.
		return link.AttachXDP(link.XDPOptions{Interface: ifindex, Program: p, Flags: link.XDPDriverMode})
	}
	return link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: d.attachType()})
}

// openLink adopts the pinned link of a hook, or makes a new one under a
// temporary name. Of tcx, the error wraps link.ErrNotSupported before Linux 6.6.
func (l *Loader) openLink(ifindex int, d direction, p *ebpf.Program) (*linkHook, error) {
	h, err := l.adoptLink(ifindex, d, p)
	if err != nil {
		return nil, err
	}
	if h == nil {
		if h, err = l.newLink(ifindex, d, p); err != nil {
			return nil, err
		}
	}
	if err := h.alone(); err != nil {
		return nil, errors.Join(err, h.cancel())
	}
	return h, nil
}

func (l *Loader) newLink(ifindex int, d direction, p *ebpf.Program) (*linkHook, error) {
	ln, err := attachLink(ifindex, d, p)
	if err != nil {
		return nil, err
	}
	h := &linkHook{link: ln, ifindex: ifindex, dir: d, pin: l.pins.link(ifindex, d), fresh: true}
	info, err := ln.Info()
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	h.id = info.ID
	if err := ln.Pin(h.pin + temporary); err != nil {
		return nil, errors.Join(fmt.Errorf("pin the link: %w", err), ln.Close())
	}
	return h, nil
}

// adoptLink opens the pinned link of a hook and gives it the program; nil when
// there is none that is of use. A pin whose link is dead, or whose interface
// is another one by now, is removed.
func (l *Loader) adoptLink(ifindex int, d direction, p *ebpf.Program) (*linkHook, error) {
	pin := l.pins.link(ifindex, d)
	ln, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned link %s: %w", pin, err)
	}
	h := &linkHook{link: ln, ifindex: ifindex, dir: d, pin: pin}
	on, err := h.onHook()
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	if !on {
		l.opts.Logger.Info("a pinned link was detached while nobody watched; making a new one", "pin", pin)
		return nil, errors.Join(ln.Unpin(), ln.Close())
	}
	if err := ln.Update(p); err != nil {
		return nil, errors.Join(fmt.Errorf("give the pinned link %s the new program: %w", pin, err), ln.Close())
	}
	return h, nil
}

// onHook tells whether the link is attached to the hook it is meant for. The
// question goes to the interface, since an index says nothing about which
// network namespace it counts in.
func (h *linkHook) onHook() (bool, error) {
	info, err := h.link.Info()
	if err != nil {
		return false, err
	}
	h.id = info.ID
	ifindex, err := ifindexOf(h.link)
	if err != nil || ifindex != uint32(h.ifindex) {
		return false, err
	}
	if h.dir == driver {
		return runsXDP(h.ifindex, info.Program)
	}
	attached, err := h.query()
	if err != nil {
		return false, err
	}
	for _, a := range attached {
		if id, ok := a.LinkID(); ok && id == h.id {
			return true, nil
		}
	}
	return false, nil
}

func (h *linkHook) query() ([]link.AttachedProgram, error) {
	res, err := link.QueryPrograms(link.QueryOptions{Target: h.ifindex, Attach: h.dir.attachType()})
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask which programs are on %s of interface %d: %w", h.dir, h.ifindex, err)
	}
	return res.Programs, nil
}

// alone returns an error when another program of siskin is on the same hook:
// two of them would steer every connection twice. XDP has room for one only.
func (h *linkHook) alone() error {
	if h.dir == driver {
		return nil
	}
	attached, err := h.query()
	if err != nil {
		return err
	}
	for _, a := range attached {
		if id, ok := a.LinkID(); ok && id == h.id {
			continue
		}
		p, err := ebpf.NewProgramFromID(a.ID)
		if errors.Is(err, unix.EPERM) || errors.Is(err, fs.ErrNotExist) {
			// Looking at others' programs takes CAP_SYS_ADMIN. Without it
			// the locks have to do.
			continue
		}
		if err != nil {
			return fmt.Errorf("look at program %d: %w", a.ID, err)
		}
		info, err := p.Info()
		if cerr := p.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("look at program %d: %w", a.ID, err)
		}
		if strings.HasPrefix(info.Name, "siskin_") {
			return fmt.Errorf("%w: program %d (%s) is on %s already, pinned elsewhere; run `siskin uninstall --bpffs` with that directory",
				ErrLocked, a.ID, info.Name, h.dir)
		}
	}
	return nil
}

func (h *linkHook) commit() error {
	if !h.fresh {
		return nil
	}
	if err := h.link.Pin(h.pin); err != nil { // renames
		return fmt.Errorf("put the link's pin in force: %w", err)
	}
	h.fresh = false
	return nil
}

// alive pins the link again when its pin is gone: the link lives by our file
// descriptor then, and would die with this process.
func (h *linkHook) alive(pin bool) (alive, repinned bool, err error) {
	ifindex, err := ifindexOf(h.link)
	if err != nil || ifindex == 0 {
		return false, false, err
	}
	if !pin {
		return true, false, nil
	}
	if _, err := os.Stat(h.pin); !errors.Is(err, fs.ErrNotExist) {
		return true, false, err
	}
	if err := os.MkdirAll(filepath.Dir(h.pin), 0o700); err != nil {
		return true, false, fmt.Errorf("make the directory for links: %w", err)
	}
	again, err := another(h.link)
	if err != nil {
		return true, false, fmt.Errorf("pin the link again: %w", err)
	}
	if err := again.Pin(h.pin); err != nil {
		return true, false, errors.Join(fmt.Errorf("pin the link again: %w", err), again.Close())
	}
	old := h.link
	h.link = again
	return true, true, old.Close()
}

// another returns a second handle of a link, which knows no old pin to rename.
// Opening it by its id would take CAP_SYS_ADMIN.
func another(ln link.Link) (link.Link, error) {
	file, ok := ln.(interface{ FD() int })
	if !ok {
		return nil, fmt.Errorf("%T has no file descriptor", ln)
	}
	fd, err := unix.FcntlInt(uintptr(file.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy its file descriptor: %w", err)
	}
	return link.NewFromFD(fd)
}

func (h *linkHook) remove() error {
	pin := h.pin
	if h.fresh {
		pin += temporary
	}
	err := os.Remove(pin)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(detach(h.link), err, h.link.Close())
}

func (h *linkHook) cancel() error {
	if h.fresh {
		return h.remove()
	}
	return h.close()
}

func (h *linkHook) close() error { return h.link.Close() }

// detach detaches a link; one that is detached already is no error.
func detach(ln link.Link) error {
	ifindex, err := ifindexOf(ln)
	if err != nil || ifindex == 0 {
		return err
	}
	if err := ln.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return err
	}
	return nil
}

// ifindexOf returns the interface a link is attached to; 0 when it is attached
// no more, or is a link of a kind that we make none of and so not ours.
func ifindexOf(ln link.Link) (uint32, error) {
	info, err := ln.Info()
	if err != nil {
		return 0, fmt.Errorf("look at a link: %w", err)
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex, nil
	}
	if xdp := info.XDP(); xdp != nil {
		return xdp.Ifindex, nil
	}
	return 0, nil
}

// linked lists the hooks of an interface that have a pin in force.
func (p pins) linked(ifindex int) ([]direction, error) {
	var out []direction
	for _, d := range []direction{ingress, egress, driver} {
		_, err := os.Stat(p.link(ifindex, d))
		if err == nil {
			out = append(out, d)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look at pinned links: %w", err)
		}
	}
	return out, nil
}

// removeLinks detaches and unpins the links of one interface, and returns how
// many there were.
func (p pins) removeLinks(ifindex int) (int, error) {
	names, err := list(p.links())
	if err != nil {
		return 0, err
	}
	n := 0
	var errs []error
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), strconv.Itoa(ifindex)+"-") {
			removed, err := removeLink(name)
			errs = append(errs, err)
			if removed {
				n++
			}
		}
	}
	return n, errors.Join(errs...)
}

// removeLink detaches and unpins the link at path. A link of another kind than
// ours is not ours: only its pin, which lies in our directory, goes.
func removeLink(path string) (removed bool, err error) {
	ln, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false, errors.Join(fmt.Errorf("open pinned link %s: %w", path, err), os.Remove(path))
	}
	if err := errors.Join(detach(ln), ln.Unpin(), ln.Close()); err != nil {
		return false, fmt.Errorf("remove link %s: %w", path, err)
	}
	return true, nil
}
