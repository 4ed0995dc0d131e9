package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Before Linux 6.6 a program is held by a filter on the clsact qdisc. Ours are
// known by these two numbers and their name. The qdisc belongs to everybody:
// it is made when it is missing and never removed.
const (
	filterPriority = 50
	filterHandle   = 0x5151
)

// filterHook is a program held by a filter.
type filterHook struct {
	ifindex int
	dir     direction
	program int  // its id, to know it again
	fresh   bool // there was none before, and it is not in force yet
}

func (d direction) parent() uint32 {
	if d == ingress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

// openFilter puts the program into our filter, or makes it. The kernel
// replaces a filter of the same handle in one step.
func openFilter(ifindex int, d direction, p *ebpf.Program) (*filterHook, error) {
	if err := addClsact(ifindex); err != nil {
		return nil, err
	}
	h := &filterHook{ifindex: ifindex, dir: d}
	old, err := h.find(func(f *netlink.BpfFilter) bool {
		return f.Priority == filterPriority && f.Handle == filterHandle
	})
	if err != nil {
		return nil, err
	}
	if old != nil && !ours(old) {
		return nil, fmt.Errorf("a filter of somebody else (%s) has priority %d and handle %#x, which are siskin's; move it",
			old.Name, filterPriority, filterHandle)
	}
	h.fresh = old == nil
	f := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex,
			Parent:    d.parent(),
			Handle:    filterHandle,
			Priority:  filterPriority,
			Protocol:  unix.ETH_P_ALL,
		},
		Fd:           p.FD(),
		Name:         d.program(false),
		DirectAction: true,
	}
	if err := netlink.FilterReplace(f); err != nil {
		return nil, fmt.Errorf("add the filter: %w", err)
	}
	info, err := p.Info()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at our own program: %w", err), h.remove())
	}
	id, _ := info.ID()
	h.program = int(id)
	return h, nil
}

func addClsact(ifindex int) error {
	err := netlink.QdiscAdd(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: ifindex,
			Handle:    netlink.MakeHandle(0xffff, 0),
			Parent:    netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the clsact qdisc: %w", err)
	}
	return nil
}

// ours tells whether a filter is one that this package adds.
func ours(f *netlink.BpfFilter) bool {
	return f.Handle == filterHandle && f.Priority == filterPriority &&
		(f.Name == ingress.program(false) || f.Name == egress.program(false))
}

// sideOf is the direction of one of our filters.
func sideOf(f *netlink.BpfFilter) direction {
	if f.Parent == netlink.HANDLE_MIN_INGRESS {
		return ingress
	}
	return egress
}

func (h *filterHook) find(want func(*netlink.BpfFilter) bool) (*netlink.BpfFilter, error) {
	ifi, err := netlink.LinkByIndex(h.ifindex)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %d: %w", h.ifindex, err)
	}
	all, err := netlink.FilterList(ifi, h.dir.parent())
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	for _, f := range all {
		if bf, ok := f.(*netlink.BpfFilter); ok && want(bf) {
			return bf, nil
		}
	}
	return nil, nil
}

func (h *filterHook) commit() error {
	h.fresh = false
	return nil
}

func (h *filterHook) close() error { return nil }

func (h *filterHook) cancel() error {
	if h.fresh {
		return h.remove()
	}
	return nil
}

func (h *filterHook) alive(bool) (alive, repinned bool, err error) {
	f, err := h.find(func(f *netlink.BpfFilter) bool { return ours(f) && f.Id == h.program })
	return f != nil, false, err
}

func (h *filterHook) remove() error {
	f, err := h.find(ours)
	if err != nil || f == nil {
		return err
	}
	return deleteFilter(f)
}

func deleteFilter(f *netlink.BpfFilter) error {
	f.Fd = -1
	err := netlink.FilterDel(f)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove filter %s: %w", f.Name, err)
	}
	return nil
}

// filtersOf returns our filters on an interface.
func filtersOf(ifi netlink.Link) ([]*netlink.BpfFilter, error) {
	qdiscs, err := netlink.QdiscList(ifi)
	if err != nil {
		return nil, fmt.Errorf("list qdiscs of %s: %w", ifi.Attrs().Name, err)
	}
	clsact := false
	for _, q := range qdiscs {
		clsact = clsact || q.Type() == "clsact"
	}
	if !clsact {
		return nil, nil
	}
	var out []*netlink.BpfFilter
	for _, d := range []direction{ingress, egress} {
		all, err := netlink.FilterList(ifi, d.parent())
		if err != nil {
			return nil, fmt.Errorf("list filters of %s: %w", ifi.Attrs().Name, err)
		}
		for _, f := range all {
			if bf, ok := f.(*netlink.BpfFilter); ok && ours(bf) {
				out = append(out, bf)
			}
		}
	}
	return out, nil
}

// filtersOn is filtersOf by index; none when the interface is gone.
func filtersOn(ifindex int) ([]*netlink.BpfFilter, error) {
	ifi, err := netlink.LinkByIndex(ifindex)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %d: %w", ifindex, err)
	}
	return filtersOf(ifi)
}

// removeFilters removes our filters from one interface, and returns how many
// there were.
func removeFilters(ifindex int) (int, error) {
	found, err := filtersOn(ifindex)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, f := range found {
		errs = append(errs, deleteFilter(f))
	}
	return len(found), errors.Join(errs...)
}
