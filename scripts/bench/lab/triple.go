package lab

import (
	"errors"
	"fmt"
	"net/netip"
)

// Where says where the backends of a triple are, as the host sees it.
type Where string

const (
	// Remote backends are behind a device that leads out of the machine, as a
	// network card does: a macvlan here. Siskin rewrites the source for them,
	// and cannot give packets to the other end of the pair.
	Remote Where = "remote"
	// Local backends are behind a veth of the host, as containers are.
	Local Where = "local"
)

// Triple is a client, a host that forwards, and two backends:
//
//	client ── cl0 host ─┬─ st0 ── stable
//	                    └─ ca0 ── canary
//
// Each system under test has one of its own. The addresses are the same in
// all of them.
type Triple struct {
	Where          Where
	Client, Host   *Space
	Stable, Canary *Space

	// StableAt and CanaryAt are where the backends serve.
	StableAt, CanaryAt netip.AddrPort
}

// The addresses are of 198.18.0.0/15, which is set aside for benchmarks
// (RFC 2544).
var (
	// Frontend is what the clients of a load balancer connect to. It is on no
	// interface; the clients' route leads it to the host.
	Frontend = netip.MustParseAddrPort("198.18.0.10:80")

	everywhere  = netip.MustParsePrefix("0.0.0.0/0")
	clientAddr  = netip.MustParsePrefix("198.18.1.2/24")
	clientGW    = netip.MustParsePrefix("198.18.1.1/24")
	stableAddr  = netip.MustParsePrefix("198.18.2.2/24")
	stableGW    = netip.MustParsePrefix("198.18.2.1/24")
	canaryAddr  = netip.MustParsePrefix("198.18.3.2/24")
	canaryGW    = netip.MustParsePrefix("198.18.3.1/24")
	backendPort = uint16(8080)
)

// Devices of the host.
const (
	ClientDev = "cl0"
	StableDev = "st0"
	CanaryDev = "ca0"
)

// NewTriple lays out the network.
func NewTriple(where Where) (*Triple, error) {
	t := &Triple{Where: where}
	for role, space := range map[string]**Space{"client": &t.Client, "host": &t.Host, "stable": &t.Stable, "canary": &t.Canary} {
		var err error
		if *space, err = NewSpace(role); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	if err := t.connect(); err != nil {
		return nil, errors.Join(fmt.Errorf("lay out a network: %w", err), t.Close())
	}
	return t, nil
}

func (t *Triple) connect() error {
	if err := errors.Join(
		join(t.Host, ClientDev, t.Client, "eth0"),
		t.lead(StableDev, t.Stable), t.lead(CanaryDev, t.Canary),
		t.Host.Sysctl("net.ipv4.ip_forward=1"),
	); err != nil {
		return err
	}
	t.StableAt = netip.AddrPortFrom(stableAddr.Addr(), backendPort)
	t.CanaryAt = netip.AddrPortFrom(canaryAddr.Addr(), backendPort)
	return errors.Join(
		t.Host.address(ClientDev, clientGW), t.Client.address("eth0", clientAddr),
		t.Host.address(StableDev, stableGW), t.Stable.address("eth0", stableAddr),
		t.Host.address(CanaryDev, canaryGW), t.Canary.address("eth0", canaryAddr),
		t.Client.route(everywhere, clientGW.Addr()),
		t.Stable.route(everywhere, stableGW.Addr()),
		t.Canary.route(everywhere, canaryGW.Addr()),
	)
}

// lead connects a backend with the host.
func (t *Triple) lead(dev string, backend *Space) error {
	if t.Where == Local {
		return join(t.Host, dev, backend, "eth0")
	}
	under := dev + "-wire"
	if err := join(t.Host, under, backend, "eth0"); err != nil {
		return err
	}
	return t.Host.macvlan(dev, under)
}

// Close ends all processes in the triple and removes it.
func (t *Triple) Close() error {
	var errs []error
	for _, s := range []*Space{t.Client, t.Host, t.Stable, t.Canary} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// LeadBeyond routes all addresses that other systems use for backends to the
// stable machine, as a gateway, for services that nobody connects to.
func (t *Triple) LeadBeyond() error {
	return t.Host.route(netip.MustParsePrefix("198.19.0.0/16"), stableAddr.Addr())
}
