// Package host knows this machine: how it reaches an address, which interfaces
// lead out of it, what changes about that, and what stands in siskin's way.
package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

// Network answers questions about the routes of the network namespace it is
// used in. Its methods may be called by several goroutines.
type Network struct {
	mu      sync.Mutex
	uplinks map[int]bool // indexes of interfaces that lead to other machines
	// devices is what look said, by index. Refresh replaces it, so that an
	// answer found before that does not get into the new one.
	devices map[int]device
	hooks   Hooks
	// features are what drivers can do with XDP, by index; only while hooks
	// has an interface with XDP.
	features map[int]loader.XDPFeatures
}

// NewNetwork reads which interfaces the default routes leave by.
func NewNetwork() (*Network, error) {
	n := new(Network)
	return n, n.Refresh()
}

// Refresh reads the default routes again, and forgets what it knew about
// interfaces. Call it when Watch says so.
func (n *Network) Refresh() error {
	n.mu.Lock()
	n.devices = make(map[int]device)
	n.mu.Unlock()
	indexes, err := defaultRoutes()
	if err != nil {
		return err
	}
	uplinks := make(map[int]bool)
	for _, i := range indexes {
		uplinks[i] = true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.uplinks = uplinks
	return nil
}

var _ steering.Paths = (*Network)(nil)

// Path asks the kernel how packets to addr leave this host. A backend counts
// as remote where the route has a gateway, or leaves by a device that leads
// out of the machine; what is on-link behind a veth, a bridge of such or
// another virtual device is on this host.
func (n *Network) Path(addr netip.Addr) (steering.Path, error) {
	r, err := routeTo(addr)
	if err != nil {
		return steering.Path{}, err
	}
	if r.local {
		return steering.Path{Host: true, Source: addr.Unmap()}, nil
	}
	dev, err := n.device(r.ifindex)
	if err != nil {
		return steering.Path{}, err
	}
	path := steering.Path{Remote: r.gateway || dev.outward, Ifindex: uint32(r.ifindex), Source: r.source}
	n.shorten(&path, dev)
	return path, nil
}

// route is one answer of the routing table.
type route struct {
	local   bool
	gateway bool
	ifindex int
	source  netip.Addr // preferred; invalid when the kernel names none
}

func routeTo(addr netip.Addr) (route, error) {
	addr = addr.Unmap()
	found, err := netlink.RouteGet(addr.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES): // no, unreachable, blackhole, prohibit
		return route{}, fmt.Errorf("no route to %s: add one with `ip route add`: %w", addr, err)
	case err != nil:
		return route{}, fmt.Errorf("look up the route to %s: %w", addr, err)
	case len(found) == 0:
		return route{}, fmt.Errorf("no route to %s: add one with `ip route add`", addr)
	}
	r := found[0]
	out := route{
		local:   r.Type == unix.RTN_LOCAL,
		gateway: len(r.Gw) > 0 && !r.Gw.IsUnspecified() || r.Via != nil,
		ifindex: r.LinkIndex,
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		out.source = src.Unmap()
	}
	return out, nil
}

// DefaultInterfaces names the interfaces that default routes leave by, IPv4
// before IPv6.
func DefaultInterfaces() ([]string, error) {
	indexes, err := defaultRoutes()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range indexes {
		l, err := netlink.LinkByIndex(i)
		if err != nil {
			return nil, fmt.Errorf("look up interface %d of a default route: %w", i, err)
		}
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// defaultRoutes returns the indexes of their interfaces, each once.
func defaultRoutes() ([]int, error) {
	var out []int
	add := func(i int) {
		if i != 0 && !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if !isDefault(r) {
				continue
			}
			add(r.LinkIndex)
			for _, hop := range r.MultiPath {
				add(hop.LinkIndex)
			}
		}
	}
	return out, nil
}

func isDefault(r netlink.Route) bool {
	if r.Type != unix.RTN_UNICAST {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

// InterfaceByIndex returns the name of an interface, and the bridge or bond it
// belongs to (0: none).
func InterfaceByIndex(index int) (name string, master int, err error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", 0, fmt.Errorf("look up interface %d: %w", index, err)
	}
	return l.Attrs().Name, l.Attrs().MasterIndex, nil
}

// ErrNoInterface means that there is no interface of this name now.
var ErrNoInterface = errors.New("no such interface")

// InterfaceByName returns the index of an interface, and the bridge or bond it
// belongs to (0: none). The error wraps ErrNoInterface when there is none.
func InterfaceByName(name string) (index, master int, err error) {
	l, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return 0, 0, fmt.Errorf("%w: %s", ErrNoInterface, name)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return l.Attrs().Index, l.Attrs().MasterIndex, nil
}
