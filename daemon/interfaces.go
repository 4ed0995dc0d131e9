package daemon

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/loader"
)

// candidate is an interface that could be attached to.
type candidate struct {
	name   string
	master int // the bridge or bond it belongs to; 0: none
	index  int
	xdp    bool // not by tc
}

// choose says which interfaces are attached to: those that clients come by,
// and those that lead to backends. A packet that crosses a bridge would pass
// the hooks of a port and of the bridge itself, so of those only one is taken:
// what clients come by wins.
func choose(clients, backends []candidate) []candidate {
	out := slices.Clone(clients)
	for _, b := range backends {
		meets := func(c candidate) bool {
			return c.index == b.index || c.master == b.index || b.master != 0 && b.master == c.index
		}
		if !slices.ContainsFunc(out, meets) {
			out = append(out, b)
		}
	}
	return out
}

// attach attaches to every interface that is wanted and there, and to those
// that ways are about to lead by. It returns the errors of those that failed;
// the others are attached all the same.
func (d *daemon) attach(ways ...int) error {
	d.hooks.Lock()
	defer d.hooks.Unlock()
	wanted, err := d.wanted(ways...)
	errs := []error{err}
	var refused []error
	for _, c := range wanted {
		if slices.ContainsFunc(d.loader.Attached(), func(i loader.Interface) bool { return i.Ifindex == c.index }) {
			continue
		}
		err := d.attachOne(c)
		errs = append(errs, err)
		if errors.Is(err, loader.ErrXDP) {
			refused = append(refused, err)
		}
	}
	d.tellHooks()
	d.mu.Lock()
	d.refused = errors.Join(refused...)
	d.mu.Unlock()
	return errors.Join(errs...)
}

// attachOne attaches to one interface, and tells of it.
func (d *daemon) attachOne(c candidate) error {
	attach := d.loader.Attach
	if c.xdp {
		attach = d.loader.AttachXDP
	}
	ifi, err := attach(c.name)
	if err != nil {
		d.once("attach "+c.name, err, func() {
			d.events.warn("interface/"+c.name, "AttachFailed", err.Error())
		})
		return err
	}
	d.forgetOnce("attach " + c.name)
	how := "tcx"
	if ifi.Clsact {
		how = "clsact"
	}
	if ifi.XDP {
		how = "XDP, and what leaves by " + how
	}
	d.events.normal("interface/"+c.name, "Attached", "attached to "+c.name+" by "+how)
	return nil
}

// wanted lists the interfaces that should be attached to and exist.
func (d *daemon) wanted(ways ...int) ([]candidate, error) {
	names := d.opts.named()
	var errs []error
	if len(names) == 0 {
		var err error
		if names, err = host.DefaultInterfaces(); err != nil {
			errs = append(errs, err)
		}
	}
	var clients, backends []candidate
	for _, name := range names {
		index, master, err := host.InterfaceByName(name)
		switch {
		case errors.Is(err, host.ErrNoInterface):
			d.once("missing "+name, nil, func() {
				d.events.warn("interface/"+name, "InterfaceMissing",
					"there is no interface "+name+"; it is attached to when it appears")
			})
		case err != nil:
			errs = append(errs, err)
		default:
			d.forgetOnce("missing " + name)
			clients = append(clients, candidate{name, master, index, slices.Contains(d.opts.XDP, name)})
		}
	}
	indexes, err := d.backendInterfaces()
	errs = append(errs, err)
	for _, index := range append(indexes, ways...) {
		name, master, err := host.InterfaceByIndex(index)
		if err != nil {
			continue // gone; the reconciler is about to learn a new way
		}
		backends = append(backends, candidate{name: name, master: master, index: index})
	}
	return choose(clients, backends), errors.Join(errs...)
}

// backendInterfaces returns the interfaces by which backends are reached, also
// retired ones that still have connections.
func (d *daemon) backendInterfaces() ([]int, error) {
	seen := make(map[int]bool)
	for _, s := range d.rec.Status() {
		for _, v := range s.Versions {
			for _, b := range v.Backends {
				entry, err := d.backend(b.ID)
				if err != nil {
					return nil, err
				}
				if entry.Ifindex != 0 && entry.Flags&bpf.BackendHost == 0 {
					seen[int(entry.Ifindex)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(seen)), nil
}

// ways returns the interfaces by which the backends of documents are reached.
// They are attached to before the maps lead there: the answers of a backend
// that is remote need the hook on the interface they come in by.
func (d *daemon) ways(services ...*api.Service) []int {
	seen := make(map[int]bool)
	for _, s := range services {
		for _, v := range s.Spec.Versions {
			for _, b := range v.Backends {
				// One without a route leads nowhere; the reconciler says so.
				if path, err := d.network.Path(b.Address.Addr()); err == nil && !path.Host {
					seen[int(path.Ifindex)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// backend reads one entry of the backends map.
func (d *daemon) backend(id uint32) (bpf.Backend, error) {
	var b bpf.Backend
	if err := d.loader.Map("backends").Lookup(id, &b); err != nil {
		return b, fmt.Errorf("read backend %d: %w", id, err)
	}
	return b, nil
}

// settleLeftovers deals with the hooks that an earlier daemon left where this
// one does not attach by itself. They still run that daemon's programs. Where
// the interfaces were named, they go; where they are found by the default
// routes they get our programs, since a route that is missing just now is no
// reason to stop steering.
func (d *daemon) settleLeftovers() error {
	d.hooks.Lock()
	defer d.hooks.Unlock()
	wanted, err := d.wanted()
	if err != nil {
		return err
	}
	left, err := d.loader.Leftovers()
	errs := []error{err}
	for _, l := range left {
		switch {
		case slices.ContainsFunc(wanted, func(c candidate) bool { return c.index == l.Ifindex }):
			// Attaching failed, and is tried again: the old programs are
			// better than none.
		case len(d.opts.named()) == 0:
			_, err := d.loader.Attach(l.Name)
			errs = append(errs, err)
		default:
			errs = append(errs, d.loader.Drop(l.Ifindex))
			d.events.normal("interface/"+l.Name, "Detached", "detached from "+l.Name+", where nothing is steered any more")
		}
	}
	d.tellHooks()
	return errors.Join(errs...)
}

// leftovers tells whether an earlier daemon's hooks are there, and whether this
// one will attach where they are in another way: by XDP where tc was, or the
// other way round.
func (d *daemon) leftovers() (there, moving bool, err error) {
	d.hooks.Lock()
	defer d.hooks.Unlock()
	left, err := d.loader.Leftovers()
	moving = slices.ContainsFunc(left, func(i loader.Interface) bool {
		return i.XDP != slices.Contains(d.opts.XDP, i.Name)
	})
	return len(left) > 0, moving, err
}

// check repairs what others did to our hooks and pins, and tells of it.
func (d *daemon) check(now time.Time) {
	d.hooks.Lock()
	found := d.loader.Check(now)
	d.tellHooks()
	d.hooks.Unlock()
	failing := make(map[string]bool)
	for _, e := range found {
		object := "interface/" + e.Interface
		if e.Interface == "" {
			object = "bpffs"
		}
		text := describe(e)
		switch e.Kind {
		case loader.Reattached:
			d.counters.Reattachments.Inc()
			d.events.warn(object, "LinkReattached", text)
		case loader.InterfaceGone:
			d.events.warn(object, "InterfaceGone", text)
		case loader.Repinned:
			d.events.warn(object, "PinRestored", text)
		default:
			failing[checking+object] = true
			d.once(checking+object, e.Err, func() { d.events.warn(object, "CheckFailed", text) })
		}
	}
	// What is well again is worth a word when it fails the next time.
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.said, func(key, _ string) bool { return strings.HasPrefix(key, checking) && !failing[key] })
}

// checking begins the keys of what check says once.
const checking = "check "

// describe puts a finding of the loader into words.
func describe(e loader.Event) string {
	parts := map[loader.EventKind]string{
		loader.Reattached:     "somebody had detached the programs; they are attached again",
		loader.ReattachFailed: "the programs were detached and cannot be attached again yet",
		loader.InterfaceGone:  "the interface is gone; it is attached to again when it comes back",
		loader.Repinned:       "somebody had removed pins; they are there again",
		loader.CheckFailed:    "cannot look at what is attached",
	}
	text := parts[e.Kind]
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// attachedNames lists the interfaces for people.
func (d *daemon) attachedNames() string {
	d.hooks.Lock()
	defer d.hooks.Unlock()
	var names []string
	for _, i := range d.loader.Attached() {
		names = append(names, i.Name)
	}
	if len(names) == 0 {
		return "no interface yet"
	}
	return strings.Join(names, ", ")
}
