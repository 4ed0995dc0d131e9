package test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

const (
	fewPorts    = "61000-61003"
	fewPortsAre = 4
)

// hostPorts is a host that has connections of its own to the backend of a
// service, from ports inside and outside the range of source ports.
type hostPorts struct {
	*testing.T
	*bed.Routed
	*bed.Siskin
	family       bed.Family
	vip, backend netip.AddrPort
	host         netip.Addr
}

// eachHostPorts runs a test for IPv4 and IPv6 with one service of remote
// backend, over TCP or UDP.
func eachHostPorts(t *testing.T, proto string, test func(p *hostPorts)) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			p := &hostPorts{
				T: t, Routed: r, Siskin: steer(t, r.Bed, r.Host, []string{"up0"}, "--source-ports", fewPorts),
				family: f, vip: netip.AddrPortFrom(f.At(bed.VIPs, 10), 80),
				backend: netip.AddrPortFrom(f.At(bed.Remotes, 2), 8080), host: f.At(bed.Uplink, 2),
			}
			if proto == "tcp" {
				r.Remote.ServeTCP(p.backend, "remote", bed.Answer)
			} else {
				r.Remote.ServeUDP(p.backend, "remote")
			}
			p.Apply(bed.Service{Name: "web", Proto: proto,
				Frontends: []netip.AddrPort{p.vip}, Stable: []netip.AddrPort{p.backend}})
			test(p)
		})
	}
}

// talk opens a connection and asks the backend what it sees of it.
func (p *hostPorts) talk(from *bed.Namespace, source, to netip.AddrPort) (*bed.Talk, netip.AddrPort) {
	p.Helper()
	talk, err := from.TalkTo(source, to)
	if err != nil {
		p.Fatalf("%v to %v: %v", source, to, err)
	}
	p.Cleanup(func() { talk.Close() })
	return talk, p.peer(talk)
}

func (p *hostPorts) peer(talk *bed.Talk) netip.AddrPort {
	p.Helper()
	peer, err := talk.Ask("peer")
	if err != nil {
		p.Fatalf("%v: %v", talk.LocalAddr(), err)
	}
	return netip.MustParseAddrPort(peer)
}

func (p *hostPorts) awaitDrop(reason string) {
	p.Helper()
	p.Await(reason+" is counted", func() bool {
		n, err := p.Scrape().Sum("siskin_drops_total", "reason", reason)
		return err == nil && n > 0
	})
}

// The host has two connections to the backend, one of them from a port of the
// range: clients get the other ports, and nobody hears another's answers.
func TestRootHostKeepsItsPorts(t *testing.T) {
	eachHostPorts(t, "tcp", func(p *hostPorts) {
		sources := map[netip.AddrPort]*bed.Talk{}
		for _, port := range []uint16{61001, 40000} {
			from := netip.AddrPortFrom(p.host, port)
			talk, peer := p.talk(p.Host, from, p.backend)
			if peer != from {
				p.Fatalf("the backend sees %v of the host's connection from %v", peer, from)
			}
			sources[peer] = talk
		}
		for i := range fewPortsAre - 1 {
			// The ports of the host, and one of nobody.
			port := []uint16{61001, 40000, 40001}[i]
			talk, peer := p.talk(p.Client, netip.AddrPortFrom(p.family.Visitor(i), port), p.vip)
			if _, given := sources[peer]; given || peer.Addr() != p.host || peer.Port() < 61000 || peer.Port() > 61003 {
				p.Fatalf("client %d is seen as %v; in use are %v", i, peer, sources)
			}
			sources[peer] = talk
		}
		if name, err := p.Client.AskTCP(netip.AddrPortFrom(p.family.Visitor(9), 0), p.vip); err == nil {
			p.Errorf("%s answers although all ports are in use", name)
		}
		p.awaitDrop("ports_exhausted")
		for source, talk := range sources {
			if again := p.peer(talk); again != source {
				p.Errorf("the connection from %v is now seen as %v", source, again)
			}
		}
	})
}

// A program on the host binds a port that a client's connection has. It waits
// until the client is done, and neither hears the other's answers.
func TestRootHostWaitsForAClientsPort(t *testing.T) {
	eachHostPorts(t, "tcp", func(p *hostPorts) {
		client, peer := p.talk(p.Client, netip.AddrPortFrom(p.family.Visitor(1), 0), p.vip)
		type dialed struct {
			talk *bed.Talk
			err  error
		}
		own := make(chan dialed)
		go func() {
			talk, err := p.Host.TalkTo(peer, p.backend)
			own <- dialed{talk, err}
		}()
		p.awaitDrop("host_port")
		if again := p.peer(client); again != peer {
			p.Errorf("the client is now seen as %v", again)
		}
		client.Close()
		got := <-own // the kernel repeats its SYN
		if got.err != nil {
			p.Fatalf("the host's connection: %v", got.err)
		}
		defer got.talk.Close()
		if again := p.peer(got.talk); again != peer {
			p.Errorf("the host's connection from %v is seen as %v", peer, again)
		}
	})
}

// datagrams binds a socket of the host.
func (p *hostPorts) datagrams(port uint16) *net.UDPConn {
	p.Helper()
	var conn *net.UDPConn
	err := p.Host.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.host, port)))
		return err
	})
	if err != nil {
		p.Fatalf("bind port %d on the host: %v", port, err)
	}
	p.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a datagram to the backend and waits a moment for its answer.
func (p *hostPorts) ask(conn *net.UDPConn) error {
	if err := conn.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.WriteToUDPAddrPort([]byte("?"), p.backend); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	buf := make([]byte, 100)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		return err
	}
	if from.Port() != p.backend.Port() || string(buf[:n]) != "remote" {
		return fmt.Errorf("%v answered %q", from, buf[:n])
	}
	return nil
}

// As a resolver does, a program of the host asks from a port that it has bound.
func TestRootHostKeepsItsDatagrams(t *testing.T) {
	eachHostPorts(t, "udp", func(p *hostPorts) {
		first := p.datagrams(61001)
		for i := range fewPortsAre - 1 {
			if _, err := p.Client.AskUDP(netip.AddrPortFrom(p.family.Visitor(i), 61001), p.vip, 0); err != nil {
				p.Fatalf("client %d: %v", i, err)
			}
		}
		if err := p.ask(first); err != nil {
			p.Errorf("the socket that was there before the clients: %v", err)
		}
		// All other ports are clients'. The one of whose two ends nobody has
		// spoken again is the host's after a while.
		later := p.datagrams(61002)
		if err := p.ask(later); err == nil {
			p.Error("the backend's answer could have been the client's")
		}
		p.awaitDrop("host_port")
		p.Await("the clients are done", func() bool { return p.ask(later) == nil })
	})
}
