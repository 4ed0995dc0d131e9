package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// EventKind says what Check found.
type EventKind string

const (
	// Reattached: somebody detached our program; it is attached again.
	Reattached EventKind = "reattached"
	// ReattachFailed: it could not be attached again; tried again later.
	ReattachFailed EventKind = "reattach-failed"
	// InterfaceGone: the interface does not exist any more.
	InterfaceGone EventKind = "interface-gone"
	// Repinned: somebody removed a pin; it is there again.
	Repinned EventKind = "repinned"
	// CheckFailed: the kernel could not be asked.
	CheckFailed EventKind = "check-failed"
)

// Event is something that others did to what is ours.
type Event struct {
	Kind      EventKind
	Interface string // empty where no single interface is concerned
	Detail    string
	Err       error // of the kinds that failed
}

// retryMost bounds the pause between repairs that fail again and again, as
// they do when two tools want the same hook.
const retryMost = time.Minute

// Check compares what is attached and pinned with what should be, repairs it
// and reports what it found. It is meant to be called about every second.
func (l *Loader) Check(now time.Time) []Event {
	var events []Event
	// Without its bpf filesystem nothing can be pinned, and making the
	// directories anew would only litter what lies below the mount point.
	mounted := CheckBPFFS(l.pins.root)
	if mounted != nil {
		events = append(events, Event{Kind: CheckFailed, Detail: "pins", Err: mounted})
	}
	for index, a := range l.attached {
		name, err := nameOf(index)
		switch {
		case err != nil:
			events = append(events, Event{Kind: CheckFailed, Interface: a.name, Err: err})
		case name == "":
			events = append(events, l.forget(index, a))
		default:
			a.name = name
			events = append(events, l.repair(index, a, now, mounted == nil)...)
		}
	}
	if mounted != nil {
		return events
	}
	names, err := l.pins.repinMaps(l.maps)
	if len(names) > 0 {
		events = append(events, Event{Kind: Repinned, Detail: "maps " + strings.Join(names, ", ")})
	}
	if err != nil {
		events = append(events, Event{Kind: CheckFailed, Detail: "pinned maps", Err: err})
	}
	return append(events, l.sweep()...)
}

// nameOf returns the present name of an interface; empty when it is gone.
func nameOf(index int) (string, error) {
	ifi, err := netlink.LinkByIndex(index)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look up interface %d: %w", index, err)
	}
	return ifi.Attrs().Name, nil
}

// forget drops the hooks of an interface that is gone. The kernel detached
// them; their pins are left to us.
func (l *Loader) forget(index int, a *attachment) Event {
	err := a.remove()
	delete(l.attached, index)
	return Event{Kind: InterfaceGone, Interface: a.name, Err: err}
}

// repair attaches again what somebody detached.
func (l *Loader) repair(index int, a *attachment, now time.Time, pin bool) []Event {
	var events []Event
	dead := false
	for _, h := range a.hooks {
		alive, repinned, err := h.alive(pin)
		if err != nil {
			events = append(events, Event{Kind: CheckFailed, Interface: a.name, Err: err})
			continue
		}
		if repinned {
			events = append(events, Event{Kind: Repinned, Interface: a.name, Detail: "link"})
		}
		dead = dead || !alive
	}
	if !dead || now.Before(a.retry) {
		return events
	}
	again, err := l.reattach(index, a)
	if err != nil {
		a.failures++
		a.retry = now.Add(min(time.Second<<min(a.failures, 10), retryMost))
		return append(events, Event{Kind: ReattachFailed, Interface: a.name, Err: err})
	}
	l.attached[index] = again
	return append(events, Event{Kind: Reattached, Interface: again.name})
}

// reattach attaches anew. A hook that still lives is adopted by its pin, so
// the side that nobody touched has no gap.
func (l *Loader) reattach(index int, a *attachment) (*attachment, error) {
	ifi, layer3, err := lookup(a.name)
	if err != nil {
		return nil, err
	}
	if a.kind.xdp {
		if err := fitForXDP(ifi, layer3); err != nil {
			return nil, err
		}
	}
	again, err := l.attach(a.name, index, kind{layer3: layer3, xdp: a.kind.xdp})
	if err != nil {
		return nil, fmt.Errorf("attach to %s again: %w", a.name, err)
	}
	return again, a.close()
}

// sweep removes pins whose interface was removed while no process watched.
func (l *Loader) sweep() []Event {
	names, err := list(l.pins.links())
	if err != nil {
		return []Event{{Kind: CheckFailed, Detail: "pinned links", Err: err}}
	}
	var events []Event
	for _, path := range names {
		index, err := strconv.Atoi(strings.SplitN(path[strings.LastIndexByte(path, '/')+1:], "-", 2)[0])
		if err != nil || l.attached[index] != nil {
			continue
		}
		name, err := nameOf(index)
		if err != nil || name != "" {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			events = append(events, Event{Kind: CheckFailed, Detail: path, Err: err})
		}
	}
	return events
}
