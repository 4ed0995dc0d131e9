package steering

import (
	"net/netip"

	"siskin.dev/siskin/bpf"
)

// A Table is a kernel map as the Reconciler needs it.
type Table[K comparable, V any] interface {
	// Put writes one entry; readers see the old value or the new one.
	Put(K, V) error
	// Delete removes an entry; an absent one is no error.
	Delete(K) error
	// All returns every entry; of an array, those that are not zero.
	All() (map[K]V, error)
}

// Words are the weight words of the releases, shared with the kernel.
type Words interface {
	// Load reads word i.
	Load(i uint32) Word
	// Store writes word i as one aligned 64-bit store: every packet that
	// reads it later, on any CPU, sees the new word.
	Store(i uint32, w Word)
	// Swap does so where word i still is old, and reports whether it was: the
	// kernel takes the words of releases back by itself.
	Swap(i uint32, old, w Word) bool
}

// Slots is the flat array of all Maglev tables.
type Slots interface {
	// Fill writes the backend ids to [offset, offset+len(ids)).
	Fill(offset uint32, ids []uint32) error
	// Read returns [offset, offset+length).
	Read(offset, length uint32) ([]uint32, error)
}

// Maps is everything the Reconciler writes. The daemon fills it with the
// kernel's maps, a test with fakes.
type Maps struct {
	Gate      Table[uint32, uint64]
	Frontends Table[bpf.Tuple, bpf.Frontend]
	VIPs      Table[uint32, bpf.Tuple]
	Echoes    Table[bpf.Addr, uint32]
	Backends  Table[uint32, bpf.Backend]
	Endpoints Table[bpf.Tuple, bpf.Endpoint]
	Services  Table[uint32, bpf.ServiceName]
	Words     Words
	Maglev    Slots
	Leases    Leases
	Releases  Releases

	// FlowsOf tells how many flow records name each backend id: the sum over
	// the CPUs of opened - forgotten. Ids without flows may be absent.
	FlowsOf func() (map[uint32]uint64, error)
	// FrontendsInUse tells which frontend ids are named by a flow.
	FrontendsInUse func() (map[uint32]bool, error)
	// Grace returns when no program run that began before the call is still
	// going on (an RCU grace period).
	Grace func() error
	// Reset zeroes the counters of a backend id before the id is given out,
	// and ResetLatency the histograms of a version; nil: nothing to do.
	Reset        func(backend uint32) error
	ResetLatency func(version uint32) error

	Limits Limits
}

// Limits are the sizes of the maps, in entries. Ids begin at 1, so that a
// zeroed entry names nothing: one entry of each is never used.
type Limits struct {
	Services  uint32
	Frontends uint32
	Backends  uint32
	Words     uint32
	Versions  uint32 // entries of the latencies map
	Maglev    uint32
	Gate      uint32 // words of the gate map
}

// A Path is how this host reaches an address.
type Path struct {
	Host    bool       // it is an address of this host
	Remote  bool       // it is on another machine
	Ifindex uint32     // of the interface that the route leaves by; 0: Host
	Source  netip.Addr // what this host uses as its own address towards it

	// The rest is what packets may do instead of going through the stack.
	Redirect bool // tc may send them out by the interface
	Peer     bool // and right through it, into the namespace behind it
	XDP      bool // XDP may send them out by the interface
}

// Paths finds the way to an address.
type Paths interface {
	// Path returns an error where there is no route.
	Path(netip.Addr) (Path, error)
}
