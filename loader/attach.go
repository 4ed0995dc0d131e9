package loader

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// direction of packets on an interface, as the host sees them.
type direction int

const (
	ingress direction = iota
	egress
	// driver is ingress, too, at the driver: XDP.
	driver
)

func (d direction) String() string {
	switch d {
	case ingress:
		return "ingress"
	case driver:
		return "xdp"
	}
	return "egress"
}

// program is the name of the program for a direction; layer3 on interfaces
// whose packets begin with the IP header.
func (d direction) program(layer3 bool) string {
	name := "siskin_" + d.String()
	if layer3 {
		name += "_l3"
	}
	return name
}

// hook is one program on one side of one interface.
type hook interface {
	// commit puts a new hook's pin in force.
	commit() error
	// alive tells whether the kernel still runs our program there. With pin it
	// also puts a pin back that is gone; repinned says that it did.
	alive(pin bool) (alive, repinned bool, err error)
	// cancel takes back what this process did before commit: a new hook is
	// removed, one that was there stays.
	cancel() error
	// remove detaches the program and removes the pin.
	remove() error
	// close lets go of the hook and leaves it in the kernel.
	close() error
}

// attachment is what is attached to one interface.
type attachment struct {
	name    string
	ifindex int
	kind    kind
	hooks   []hook

	failures int       // repairs that failed in a row
	retry    time.Time // not before this
}

// kind is how an interface is attached to.
type kind struct {
	layer3 bool // its packets begin with the IP header
	xdp    bool // XDP takes what comes in, tc only what leaves
	clsact bool // tc by filters, not by links
}

// sides are where the programs go.
func (k kind) sides() []direction {
	if k.xdp {
		return []direction{egress, driver}
	}
	return []direction{ingress, egress}
}

// linked tells whether the program of a side is held by a link.
func (k kind) linked(d direction) bool {
	return slices.Contains(k.sides(), d) && (d == driver || !k.clsact)
}

// filtered tells whether the program of a side is held by a filter.
func (k kind) filtered(d direction) bool {
	return slices.Contains(k.sides(), d) && !k.linked(d)
}

// Interface is an interface that the programs are attached to.
type Interface struct {
	Name    string
	Ifindex int
	XDP     bool // at ingress by XDP, not by tc
	Clsact  bool // tc by filters, not by links
	Broken  bool // somebody detached them, and they could not be attached again
}

// Attached lists the interfaces that the programs are attached to, by index.
func (l *Loader) Attached() []Interface {
	out := make([]Interface, 0, len(l.attached))
	for _, a := range l.attached {
		out = append(out, a.told())
	}
	slices.SortFunc(out, func(a, b Interface) int { return a.Ifindex - b.Ifindex })
	return out
}

// told is what others are told of an attachment.
func (a *attachment) told() Interface {
	return Interface{Name: a.name, Ifindex: a.ifindex, XDP: a.kind.xdp, Clsact: a.kind.clsact, Broken: a.failures > 0}
}

// Attach attaches the programs to both sides of an interface, or to neither.
// Hooks that an earlier process left there get this build's programs in one
// step, without a gap. Attaching again changes nothing. The error wraps
// ErrNoInterface when the interface does not exist.
func (l *Loader) Attach(name string) (Interface, error) { return l.attachTo(name, false) }

// AttachXDP is Attach with XDP, in native mode, for what comes in. Where the
// interface cannot do that the error wraps ErrXDP and says why, and what is
// attached stays as it was.
func (l *Loader) AttachXDP(name string) (Interface, error) { return l.attachTo(name, true) }

func (l *Loader) attachTo(name string, xdp bool) (Interface, error) {
	ifi, layer3, err := lookup(name)
	if err != nil {
		return Interface{}, err
	}
	index := ifi.Attrs().Index
	old := l.attached[index]
	if old != nil && old.kind.xdp == xdp {
		old.name = name // it may have been renamed
		return old.told(), nil
	}
	if xdp {
		if err := fitForXDP(ifi, layer3); err != nil {
			return Interface{}, err
		}
	}
	a, err := l.attach(name, index, kind{layer3: layer3, xdp: xdp})
	if err != nil {
		return Interface{}, fmt.Errorf("attach to %s: %w", name, err)
	}
	l.attached[index] = a
	if old != nil {
		return a.told(), old.close()
	}
	return a.told(), nil
}

// lookup finds an interface and says whether its packets lack a link-layer
// header (tun, wireguard, ipip …).
func lookup(name string) (netlink.Link, bool, error) {
	ifi, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, false, fmt.Errorf("%w: %s; `ip link` lists those there are", ErrNoInterface, name)
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up interface %s: %w", name, err)
	}
	switch kind := ifi.Attrs().EncapType; kind {
	case "ether", "loopback":
		return ifi, false, nil
	case "none", "ppp", "ipip", "tunnel6", "sit", "gre",
		"unknown519", "unknown823": // ARPHRD_RAWIP and ARPHRD_IP6GRE
		return ifi, true, nil
	default:
		return nil, false, fmt.Errorf("interface %s has link layer %q, which siskin cannot read; "+
			"use one that carries Ethernet or plain IP", name, kind)
	}
}

func (l *Loader) attach(name string, index int, k kind) (*attachment, error) {
	progs := make(map[direction]*ebpf.Program)
	for _, d := range k.sides() {
		p, err := l.program(d.program(k.layer3))
		if err != nil {
			return nil, err
		}
		progs[d] = p
	}
	if !l.clsact {
		a, err := l.attachBy(name, index, progs, k)
		// XDP has links on every kernel that siskin runs on.
		if !errors.Is(err, link.ErrNotSupported) || errors.Is(err, ErrXDP) {
			return a, err
		}
		l.clsact = true
		l.opts.Logger.Warn("this kernel has no tcx (it came with Linux 6.6): filters on the clsact qdisc are used instead")
	}
	k.clsact = true
	return l.attachBy(name, index, progs, k)
}

// attachBy attaches by one mechanism and then takes away what we had there by
// another. For a moment both may run: the second finds the packets rewritten
// already and passes them on. A gap would reset connections.
func (l *Loader) attachBy(name string, index int, progs map[direction]*ebpf.Program, k kind) (_ *attachment, err error) {
	a := &attachment{name: name, ifindex: index, kind: k}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.cancel(a))
		}
	}()
	for _, d := range k.sides() {
		var h hook
		if k.filtered(d) {
			h, err = openFilter(index, d, progs[d])
		} else {
			h, err = l.openLink(index, d, progs[d])
		}
		if err != nil && d == driver {
			err = refusal(name, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d, err)
		}
		a.hooks = append(a.hooks, h)
	}
	for _, h := range a.hooks {
		if err = h.commit(); err != nil {
			return nil, err
		}
	}
	return a, l.dropOther(index, k)
}

// cancel takes back a half-made attachment. Hooks on both sides that were there
// before stay, with the programs they had or with ours: both work on the same
// maps. A side that is alone goes too: it rewrites packets whose answers nobody
// mends.
func (l *Loader) cancel(a *attachment) error {
	var errs []error
	for _, h := range a.hooks {
		errs = append(errs, h.cancel())
	}
	left, err := l.pins.linked(a.ifindex)
	errs = append(errs, err)
	filters, err := filtersOn(a.ifindex)
	errs = append(errs, err)
	for _, f := range filters {
		left = append(left, sideOf(f))
	}
	in := slices.Contains(left, ingress) || slices.Contains(left, driver)
	if out := slices.Contains(left, egress); in != out {
		errs = append(errs, l.Drop(a.ifindex))
	}
	return errors.Join(errs...)
}

// remove takes the hooks away.
func (a *attachment) remove() error {
	var errs []error
	for _, h := range a.hooks {
		errs = append(errs, h.remove())
	}
	return errors.Join(errs...)
}

// dropOther removes our hooks that are of another kind.
func (l *Loader) dropOther(index int, k kind) error {
	linked, err := l.pins.linked(index)
	errs := []error{err}
	for _, d := range linked {
		if !k.linked(d) {
			_, err := removeLink(l.pins.link(index, d))
			errs = append(errs, err)
		}
	}
	filters, err := filtersOn(index)
	errs = append(errs, err)
	for _, f := range filters {
		if !k.filtered(sideOf(f)) {
			errs = append(errs, deleteFilter(f))
		}
	}
	return errors.Join(errs...)
}

func (a *attachment) close() error {
	var errs []error
	for _, h := range a.hooks {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// Detach takes the programs off an interface.
func (l *Loader) Detach(index int) error {
	a := l.attached[index]
	if a == nil {
		return nil
	}
	if err := a.remove(); err != nil {
		return fmt.Errorf("detach from %s: %w", a.name, err)
	}
	delete(l.attached, index)
	return nil
}

// Leftovers lists the interfaces of this network namespace that an earlier
// process attached to and this one has not. Their hooks run the old programs
// on the same maps: attach to them or drop them.
func (l *Loader) Leftovers() ([]Interface, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []Interface
	for _, ifi := range links {
		at := ifi.Attrs()
		if l.attached[at.Index] != nil {
			continue
		}
		linked, err := l.pins.linked(at.Index)
		if err != nil {
			return nil, err
		}
		filters, err := filtersOf(ifi)
		if err != nil {
			return nil, err
		}
		if len(linked) > 0 || len(filters) > 0 {
			tcx := slices.ContainsFunc(linked, func(d direction) bool { return d != driver })
			out = append(out, Interface{
				Name: at.Name, Ifindex: at.Index, XDP: slices.Contains(linked, driver), Clsact: !tcx,
			})
		}
	}
	return out, nil
}

// Drop removes the hooks that an earlier process left on an interface.
func (l *Loader) Drop(index int) error {
	_, err := l.pins.removeLinks(index)
	_, ferr := removeFilters(index)
	if err := errors.Join(err, ferr); err != nil {
		return fmt.Errorf("drop old hooks: %w", err)
	}
	return nil
}
