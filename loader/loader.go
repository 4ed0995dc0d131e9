// Package loader brings the kernel programs to life and keeps them alive: it
// loads them with their maps, pins both below a versioned directory of a bpf
// filesystem, attaches to interfaces, adopts what an earlier process left,
// repairs what others detached, and removes every trace on request.
//
// What is pinned outlives the process. Close lets go of file descriptors only.
package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"siskin.dev/siskin/bpf"
)

// LayoutVersion names the layout of the pinned maps. It changes when a map's
// key, value or meaning changes, so that two builds never share a map that
// they read differently.
const LayoutVersion = 3

// DefaultBPFFS is where maps and links are pinned.
const DefaultBPFFS = "/sys/fs/bpf/siskin"

// Errors that a caller decides by.
var (
	// ErrLocked means that another process holds the lock.
	ErrLocked = errors.New("another siskin holds this host")
	// ErrNoBPFFS means that the directory for pins is on no bpf filesystem.
	ErrNoBPFFS = errors.New("no bpf filesystem")
	// ErrNoInterface means that there is no interface of this name now.
	ErrNoInterface = errors.New("no such interface")
	// ErrLayout means that pinned maps are not as this build needs them.
	ErrLayout = errors.New("pinned maps of another build")
	// ErrXDP means that an interface cannot be attached to by XDP, for a reason
	// that stays until somebody changes something about it.
	ErrXDP = errors.New("no XDP here")
	// ErrPrivileges means that the process may not load programs.
	ErrPrivileges = errors.New("missing privileges")
)

// Options say how to load.
type Options struct {
	// BPFFS is the directory for pins, on a bpf filesystem. Default:
	// DefaultBPFFS.
	BPFFS string
	// Sizes are the entries of the maps. Maps that are pinned already keep
	// their size.
	Sizes Sizes
	// PortMin and PortMax bound the source ports that NAT takes, both
	// inclusive. Default: 61000 to 65535.
	PortMin, PortMax uint16
	// Clsact uses filters on the clsact qdisc instead of tcx links, also
	// where the kernel has tcx.
	Clsact bool
	// Logger is where what was adopted or repaired is said. Default: nowhere.
	Logger *slog.Logger
}

// Loader holds the loaded programs and maps and what is attached. Its methods
// are for one goroutine at a time.
type Loader struct {
	opts     Options
	pins     pins
	lock     *Lock
	programs map[string]*ebpf.Program
	maps     map[string]*ebpf.Map
	seed     uint64 // of the flow table's hash
	clsact   bool   // tcx was found missing, or is not wanted
	attached map[int]*attachment
}

// Open loads the programs on the pinned maps, or on new ones that it pins.
// It attaches nothing; what an earlier process attached goes on with its own
// programs on the same maps until Attach replaces them.
func Open(opts Options) (_ *Loader, err error) {
	opts = opts.withDefaults()
	if opts.PortMin > opts.PortMax {
		return nil, fmt.Errorf("source ports %d-%d: the first is above the last", opts.PortMin, opts.PortMax)
	}
	if err := CheckPrivileges(); err != nil {
		return nil, err
	}
	if err := CheckBPFFS(opts.BPFFS); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit of locked memory: %w", err)
	}

	l := &Loader{
		opts:     opts,
		pins:     pins{root: opts.BPFFS},
		clsact:   opts.Clsact,
		programs: make(map[string]*ebpf.Program),
		maps:     make(map[string]*ebpf.Map),
		attached: make(map[int]*attachment),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := os.MkdirAll(l.pins.links(), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for pins: %w", err)
	}
	// The pins are shared by everybody who uses this directory, whatever
	// their state directory is.
	if l.lock, err = AcquireLock(opts.BPFFS); err != nil {
		return nil, err
	}
	if err := l.pins.refuseOthers(opts.Logger); err != nil {
		return nil, err
	}
	if err := l.pins.removeTemporary(); err != nil {
		return nil, err
	}
	if err := l.load(); err != nil {
		return nil, err
	}
	return l, nil
}

// load creates the maps and the programs that every attachment needs. Nothing
// is pinned until all of it exists.
func (l *Loader) load() error {
	spec, err := l.spec(bpf.Spec)
	if err != nil {
		return err
	}
	pinned, err := l.pins.openMaps(spec, l.opts.Logger)
	if err != nil {
		return err
	}
	defer closeMaps(pinned)
	if err := l.readSeed(pinned["aging"]); err != nil {
		return err
	}
	if err := setConstant(spec, "flow_seed", l.seed); err != nil {
		return err
	}
	coll, err := loadProgram(spec, pinned, starter)
	if err != nil {
		return err
	}
	defer coll.Close()
	l.programs[starter] = coll.DetachProgram(starter)
	for name := range spec.Maps {
		l.maps[name] = coll.DetachMap(name)
	}
	if err := l.addPrograms(ingress.program(false), egress.program(false), hearer); err != nil {
		return err
	}
	if pinned["aging"] == nil {
		if err := l.maps["aging"].Put(uint32(0), bpf.Clockwork{Seed: l.seed}); err != nil {
			return fmt.Errorf("keep the seed of the flow table: %w", err)
		}
	}
	return l.pins.pinMaps(l.maps)
}

// readSeed takes the seed of the flow table from the pinned table, or draws
// one for a new table.
func (l *Loader) readSeed(aging *ebpf.Map) error {
	if aging == nil {
		l.seed = rand.Uint64()
		return nil
	}
	var c bpf.Clockwork
	if err := aging.Lookup(uint32(0), &c); err != nil {
		return fmt.Errorf("read the seed of the flow table: %w", err)
	}
	l.seed = c.Seed
	return nil
}

// Map returns a map by its name in bpf/maps.h. It stays valid until Close.
// A name that does not exist is a mistake in the caller and gives nil.
func (l *Loader) Map(name string) *ebpf.Map { return l.maps[name] }

// Maps returns all maps by their names.
func (l *Loader) Maps() map[string]*ebpf.Map { return l.maps }

// Close lets go of everything and leaves it as it is in the kernel: pinned
// maps stay, attached programs go on. It frees the lock.
func (l *Loader) Close() error {
	var errs []error
	for _, a := range l.attached {
		errs = append(errs, a.close())
	}
	l.attached = nil
	for _, m := range l.maps {
		errs = append(errs, m.Close())
	}
	for _, p := range l.programs {
		errs = append(errs, p.Close())
	}
	l.maps, l.programs = nil, nil
	if l.lock != nil {
		errs = append(errs, l.lock.Release())
	}
	return errors.Join(errs...)
}

// pins knows the names below the directory for pins:
//
//	ROOT/vLAYOUT/maps/NAME
//	ROOT/vLAYOUT/links/IFINDEX-DIRECTION
//
// A dot is not allowed in names on a bpf filesystem. A name that ends in
// temporary is not in force yet.
type pins struct{ root string }

const temporary = "-new"

func (p pins) version() string { return filepath.Join(p.root, "v"+strconv.Itoa(LayoutVersion)) }
func (p pins) maps() string    { return filepath.Join(p.version(), "maps") }
func (p pins) links() string   { return filepath.Join(p.version(), "links") }

// link names the pin of an interface's hook. It holds the index and not the
// name: an index is never given to another interface while its pin is ours to
// clean up, a name can move to another interface at any time.
func (p pins) link(ifindex int, d direction) string {
	return filepath.Join(p.links(), strconv.Itoa(ifindex)+"-"+d.String())
}
