// Package steering turns the desired state of services into the kernel's maps.
//
// Its middle is pure: shares to weight words (word.go), backends to Maglev
// tables (maglev.go), desired and actual state to an ordered plan (plan.go).
// The Reconciler at its edge carries plans out, and remembers a thing only
// after the map write that made it true.
package steering

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Stable is the name of the version that gets what no other version asks for.
const Stable = "stable"

// Proto is an IP protocol number: TCP or UDP.
type Proto uint8

// The protocols that can be steered.
const (
	TCP Proto = unix.IPPROTO_TCP
	UDP Proto = unix.IPPROTO_UDP
)

func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("proto-%d", uint8(p))
}

// Share is a part of a service's new connections in basis points: 10000 is
// all of them.
type Share uint16

// Whole is a share of 100 %.
const Whole Share = 10000

// String writes the share as the documents do: "5%", "0.01%".
func (s Share) String() string {
	switch {
	case s%100 == 0:
		return fmt.Sprintf("%d%%", s/100)
	case s%10 == 0:
		return fmt.Sprintf("%d.%d%%", s/100, s%100/10)
	}
	return fmt.Sprintf("%d.%02d%%", s/100, s%100)
}

// Affinity is what makes connections stay together: the selection key.
type Affinity uint8

const (
	// ByClient keeps all connections of a client address on one version and
	// backend.
	ByClient Affinity = iota
	// ByConnection chooses anew for every connection.
	ByConnection
)

// SourceNAT says when backends see the host's address as the source.
type SourceNAT uint8

const (
	// Auto rewrites the source where the backend is remote or the packet
	// leaves by the interface it came in on.
	Auto SourceNAT = iota
	// Always rewrites it for every backend outside the host itself.
	Always
	// Never keeps the client's address.
	Never
)

// Observe is what is looked for in a service's TCP connections. A change of it
// is for new connections.
type Observe uint8

const (
	// AutoObserve looks for requests, and stops where a connection says
	// something else.
	AutoObserve Observe = iota
	// Requests is AutoObserve where nothing else is expected: what cannot be
	// read is lost.
	Requests
	// Connections reads nothing.
	Connections
)

// BackendState says whether a backend takes new connections.
type BackendState uint8

const (
	// Active backends take new connections.
	Active BackendState = iota
	// Draining backends keep the connections they have.
	Draining
	// Down backends keep their connections too, but are known not to answer.
	Down
	// Starting backends are new, and nobody knows yet whether they answer.
	Starting
)

// Frontend is an address that clients connect to.
type Frontend struct {
	Addr  netip.AddrPort
	Proto Proto
}

func (f Frontend) String() string { return f.Addr.String() + "/" + f.Proto.String() }

// Backend is an address that serves a version.
type Backend struct {
	Addr   netip.AddrPort
	Weight uint32 // relative to the other backends of its version
	State  BackendState
}

// Version is a named group of backends.
type Version struct {
	Name     string
	Backends []Backend
}

// Service is the desired state of one service.
type Service struct {
	Name      string
	Group     string // services of one group share a weight word; "": alone
	Frontends []Frontend
	Affinity  Affinity
	SourceNAT SourceNAT
	Observe   Observe
	Versions  []Version        // one of them is Stable; five at most
	Weights   map[string]Share // of the versions beside Stable; absent: 0
}
