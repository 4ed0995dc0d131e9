package steering

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"siskin.dev/siskin/bpf"
)

// answering is the value of an entry of the echoes map. It says nothing; a map
// without values would need a special case in Table.
const answering = 1

// echoesNeeded returns the addresses at which the kernel programs answer ping:
// the virtual ones that take connections. One that is the host's own or a real
// server's is left to its owner. Whether any backend is active plays no part:
// ping tells that the address is served here, a connection tells the rest.
func (s *state) echoesNeeded() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	owned := map[netip.Addr]bool{}
	for _, b := range s.backends {
		owned[b.Addr.Netip()] = true
	}
	for key, f := range s.frontends {
		addr := key.Addr.Netip()
		if f.Flags&bpf.FrontendReal != 0 {
			owned[addr] = true
		}
		if !retiredFrontend(f) {
			out[addr] = true
		}
	}
	maps.DeleteFunc(out, func(a netip.Addr, _ bool) bool { return owned[a] })
	return out
}

// echoesDiffer reports whether the map is not what it should be.
func (s *state) echoesDiffer() bool {
	need := s.echoesNeeded()
	if len(need) != len(s.echoes) {
		return true
	}
	for key := range s.echoes {
		if !need[key.Netip()] {
			return true
		}
	}
	return false
}

// writeEchoes makes the map what it should be. No packet of a connection
// depends on it, so the order does not matter, except that those to be removed
// come first: the map is no larger than that of the frontends.
func (r *Reconciler) writeEchoes() error {
	need := r.state.echoesNeeded()
	var errs []error
	stale := slices.SortedFunc(maps.Keys(r.state.echoes), func(a, b bpf.Addr) int { return a.Netip().Compare(b.Netip()) })
	for _, key := range stale {
		if !need[key.Netip()] {
			errs = append(errs, remove(r.maps.Echoes, r.state.echoes, "the echo of "+key.Netip().String(), key))
		}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(need), netip.Addr.Compare) {
		errs = append(errs, put(r.maps.Echoes, r.state.echoes, "the echo of "+addr.String(), bpf.AddrFrom(addr), answering))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("answer to ping: %w", err)
	}
	return nil
}
