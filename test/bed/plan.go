package bed

import (
	"encoding/binary"
	"net/netip"
)

// Family is an IP version. Every place of a bed has an address in both.
type Family int

// The families.
const (
	V4 Family = 4
	V6 Family = 6
)

// Families lists both, for tables of cases.
func Families() []Family { return []Family{V4, V6} }

func (f Family) String() string {
	if f == V4 {
		return "ipv4"
	}
	return "ipv6"
}

// A Network is the part of the address plan that belongs to one link. The
// addresses are those set aside for benchmarks and documents (RFC 2544,
// RFC 3849).
type Network int

// The networks of the beds.
const (
	VIPs      Network = iota // on no interface: the router leads them to the host
	Clients                  // client 2, router 1
	Uplink                   // host 2, router 1
	Nearby                   // a namespace on the host: 2, host 1
	Remotes                  // a machine behind the router: 2, router 1
	OwnAddrs                 // addresses of the host itself
	Side                     // host 1, side gateway 2
	Beyond                   // side gateway 1, machine 2
	Detour                   // machine 2, router 1: its way back to the clients
	Segment                  // a bridge: host 1, client 2, backends from 3
	Wired                    // over a slow wire: router 1, machine 2
	Late                     // of an interface that comes later: router 1, host 2
	Narrow                   // a link with a small MTU: 1, and a router behind it 2
	Behind                   // what is behind that: router 1, machine 2
	Crowd                    // where strangers come from: host 1, crowd 2
	visitors  Network = 64   // any-IP clients; 198.18.64.0/18, 2001:db8:40::/48
	strangers Network = 128  // on no interface at all; 198.19.0.0/16
)

// At returns an address: 198.18.<network>.<n> or 2001:db8:<network>::<n>.
func (f Family) At(network Network, n int) netip.Addr {
	if f == V4 {
		return netip.AddrFrom4([4]byte{198, 18, byte(network), byte(n)})
	}
	a := [16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 5: byte(network), 14: byte(n >> 8), 15: byte(n)}
	return netip.AddrFrom16(a)
}

// On returns the address with the length of its link's prefix.
func (f Family) On(network Network, n int) string {
	return netip.PrefixFrom(f.At(network, n), f.bits()).String()
}

// Alone returns the address as a prefix of itself only.
func (f Family) Alone(network Network, n int) string {
	a := f.At(network, n)
	return netip.PrefixFrom(a, a.BitLen()).String()
}

// All returns the prefix of a network.
func (f Family) All(network Network) string {
	return netip.PrefixFrom(f.At(network, 0), f.bits()).Masked().String()
}

func (f Family) bits() int {
	if f == V4 {
		return 24
	}
	return 64
}

// Everywhere is the default route.
func (f Family) Everywhere() string {
	if f == V4 {
		return "0.0.0.0/0"
	}
	return "::/0"
}

// Visitor returns the i-th of 16,384 client addresses.
func (f Family) Visitor(i int) netip.Addr {
	if f == V6 {
		return f.At(visitors, i)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 198<<24|18<<16|64<<8+uint32(i))
	return netip.AddrFrom4(a)
}

// Guest returns the address of the i-th of 16,383 clients: unlike Visitors, no
// two of them are in one /64, which is one client of IPv6.
func (f Family) Guest(i int) netip.Addr {
	if f == V4 {
		return f.Visitor(i)
	}
	a := f.At(visitors, 1).As16()
	binary.BigEndian.PutUint16(a[6:], uint16(i+1))
	return netip.AddrFrom16(a)
}

// Visitors returns the prefix of all visitors and guests.
func (f Family) Visitors() string {
	if f == V6 {
		return netip.PrefixFrom(f.At(visitors, 0), 48).String()
	}
	return "198.18.64.0/18"
}

func both(f func(Family) string) []string { return []string{f(V4), f(V6)} }

// Stranger returns an address that is nobody's: of IPv4 there are 65,536, of
// IPv6 more than ports and addresses that a test can go through.
func (f Family) Stranger(i uint32) netip.Addr {
	if f == V6 {
		a := f.At(strangers, 0).As16()
		binary.BigEndian.PutUint32(a[12:], i)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)})
}

// Strangers returns the prefix of all strangers.
func (f Family) Strangers() string {
	if f == V6 {
		return f.All(strangers)
	}
	return "198.19.0.0/16"
}
