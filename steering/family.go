package steering

import (
	"net/netip"

	"siskin.dev/siskin/bpf"
)

// slots is the number of version slots of a service; slot 0 is stable.
const slots = bpf.Versions

// Family is an address family.
type Family uint8

// The two families; an IPv4 address in IPv6 form counts as IPv4.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

func familiesOf(fs []Frontend) map[Family]bool {
	out := map[Family]bool{}
	for _, f := range fs {
		if f.Addr.IsValid() {
			out[FamilyOf(f.Addr.Addr())] = true
		}
	}
	return out
}
