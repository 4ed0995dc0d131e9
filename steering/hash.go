package steering

import (
	"encoding/binary"
	"net/netip"
)

// The hashes of the data path, computed as the kernel computes them. The two
// seeds are different, so the backend that a client gets inside a version says
// nothing about the version it gets.
const (
	bucketSeed  = 0x5151_0000_0000_0000
	backendSeed = 0xbac4e4d
	mixFactor   = 0xd6e8feb86659fd93
)

// mix is a bijection of 64-bit words in which every input bit reaches every
// output bit.
func mix(x uint64) uint64 {
	x ^= x >> 32
	x *= mixFactor
	x ^= x >> 32
	x *= mixFactor
	return x ^ x>>32
}

// A Key is what keeps connections together: those with the same key get the
// same version and backend.
type Key struct {
	client netip.Addr
	rest   uint64 // 0 where the client's address alone decides
}

// ClientKey is the key of all connections of a client.
func ClientKey(client netip.Addr) Key { return Key{client: client} }

// ConnectionKey is the key of one connection: client's address and port to
// the frontend with this address and id.
func ConnectionKey(client netip.AddrPort, f Frontend, id uint32) Key {
	return Key{
		client: client.Addr(),
		rest: uint64(client.Port())<<16 | uint64(f.Addr.Port()) |
			uint64(f.Proto)<<32 | uint64(id)<<40,
	}
}

func (k Key) hash(seed uint64) uint64 {
	b := k.client.As16()
	h := mix(seed ^ binary.NativeEndian.Uint64(b[:8]))
	h = mix(h ^ binary.NativeEndian.Uint64(b[8:]))
	return mix(h ^ k.rest)
}

// Bucket returns the selection bucket of the key, in [0, 10000), under the
// salt of a frontend.
func (k Key) Bucket(salt uint32) uint16 {
	return uint16(scale(k.hash(bucketSeed|uint64(salt)), uint32(Whole)))
}

// Index returns which entry of a table with length entries the key falls on.
func (k Key) Index(length uint32) uint32 { return scale(k.hash(backendSeed), length) }

// scale maps the upper half of h to [0, n) without a division.
func scale(h uint64, n uint32) uint32 { return uint32(h >> 32 * uint64(n) >> 32) }
