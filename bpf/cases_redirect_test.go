package bpf_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/test/netns"
)

// redirectCases play in a world with routes: what goes past the stack is
// written completely and carries the next hop's link-layer address; what the
// stack has something to say about takes its way, half rewritten.
func redirectCases() []packetCase {
	near := func(k sketch) sketch { return k.fromTo(client, nearVIP) }
	far := func(k sketch) sketch { return k.fromTo(client, farVIP) }
	reply := sketch{near1, client, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}}
	hidden := reply.fromTo(far1, onHost)
	short, big, aggregate := near(someTCP), near(someTCP), near(someTCP)
	short.ttl = 1
	big.payload = make([]byte, 1470)
	aggregate.payload = bytes.Repeat(hello, 560)
	oversize := aggregate
	oversize.payload = make([]byte, 3000)
	piece := near(someTCP)
	piece.ident, piece.fragment = 9, 1
	last := reply
	last.ttl = 1
	openNear, openFar := opened(nearVIP, near1), opened(farVIP, far1)
	bytesOf := func(k sketch, packets uint64) bpf.Tally {
		return bpf.Tally{Packets: [2]uint64{packets, 0}, Bytes: [2]uint64{uint64(len(k.payload)), 0}}
	}
	toNear, toFar, home := []oddity{forwarded(toBackends, 2)}, []oddity{forwarded(toBackends, 3)}, []oddity{forwarded(toClients, 1)}
	all := []packetCase{
		{what: "redirect: SYN", in: near(aSYN), verdict: sent, out: aSYN.fromTo(client, near1), hop: toNear, tally: aSYNsTally},
		{what: "redirect: data", before: openNear, in: near(someTCP), verdict: sent, out: someTCP.fromTo(client, near1), hop: toNear, tally: with5(toServer)},
		{what: "redirect: wrong checksum stays as wrong", before: openNear, in: near(someTCP), odd: []oddity{l4SumWrong}, verdict: sent,
			out: someTCP.fromTo(client, near1), hop: toNear, tally: with5(toServer)},
		{what: "datagram to a backend that TCP is redirected to", in: near(someUDP), out: someUDP.fromTo(client, near1), tally: with5(aSYNsTally)},
		{what: "redirect: reply", before: openNear, in: reply, verdict: sent, out: reply.fromTo(nearVIP, client), hop: home, tally: with5(toClient)},
		{what: "redirect: SYN, source NAT", in: far(aSYN), verdict: sent, out: aSYN.fromTo(onHost, far1), hop: toFar, tally: aSYNsTally},
		{what: "redirect: data, source NAT", before: openFar, in: far(someTCP), verdict: sent, out: someTCP.fromTo(onHost, far1), hop: toFar, tally: with5(toServer)},
		{what: "redirect: reply, source NAT", before: openFar, in: hidden, verdict: sent, out: hidden.fromTo(farVIP, client), hop: home, tally: with5(toClient)},

		{what: "redirect: TTL of 1", before: openNear, in: short, out: short.fromTo(client, near1), reasons: noted("last_hop"), tally: with5(toServer)},
		{what: "redirect: reply with a TTL of 1", before: openNear, in: last}, // egress puts its source right
		{what: "redirect: reply with a TTL of 1 leaves", hook: egress, before: openNear, in: last, out: last.fromTo(nearVIP, client), tally: with5(toClient)},
		{what: "redirect: larger than the next link takes", before: openNear, in: big, out: big.fromTo(client, near1), tally: bytesOf(big, 1)},
		{what: "redirect: aggregate of segments that fit", on: "tc", before: openNear, in: aggregate, segments: 2, verdict: sent,
			out: aggregate.fromTo(client, near1), hop: toNear, tally: bytesOf(aggregate, 2)},
		{what: "redirect: aggregate of segments too large", on: "tc", before: openNear, in: oversize, segments: 2,
			out: oversize.fromTo(client, near1), tally: bytesOf(oversize, 2)},
		{what: "redirect: first fragment", before: openNear, in: piece, out: piece.fromTo(client, near1), tally: with5(toServer)},
		{what: "redirect: VLAN tag", before: openNear, in: near(someTCP), odd: []oddity{tagged(0x8100)}, out: someTCP.fromTo(client, near1), tally: with5(toServer)},
		{what: "redirect: SYN with a VLAN tag", in: near(aSYN), odd: []oddity{tagged(0x8100)}, out: aSYN.fromTo(client, near1), tally: aSYNsTally},
		{what: "redirect: data on a flow that began with a tag", in: near(someTCP), out: someTCP.fromTo(client, near1), tally: with5(toServer),
			before: func(s *scene) {
				s.send(ingress, near(aSYN), tagged(0x8100))
				s.send(egress, sketch{near1, client, packet{flags: syn | ack, seq: serverISN, ack: isn + 1}})
				s.send(ingress, near(anACK))
			}},
		{what: "redirect: reply on a flow that began with a tag", in: reply, before: func(s *scene) { s.send(ingress, near(aSYN), tagged(0x8100)) }},
		{what: "redirect into a namespace: SYN", on: "tc", in: aSYN.fromTo(client, peerVIP), verdict: sent, out: aSYN.fromTo(client, peer1),
			hop: toNear, tally: aSYNsTally},
		{what: "redirect into a namespace: data", on: "tc", before: opened(peerVIP, peer1), in: someTCP.fromTo(client, peerVIP), verdict: sent,
			out: someTCP.fromTo(client, peer1), hop: toNear, tally: with5(toServer)},
		{what: "redirect from a namespace: reply", on: "tc", before: opened(peerVIP, peer1), in: reply.fromTo(peer1, client), verdict: sent,
			out: reply.fromTo(peerVIP, client), hop: home, tally: with5(toClient)},
		{what: "no redirect: SYN", in: aSYN.fromTo(client, stackVIP), out: aSYN.fromTo(client, stack1), tally: aSYNsTally},
		{what: "no redirect: reply", before: opened(stackVIP, stack1), in: reply.fromTo(stack1, client)},
	}
	for i := range all {
		all[i].world = routed
	}
	return all
}

// The last two bytes of link-layer addresses: which side, and who.
const (
	toClients  = 0x0c
	toBackends = 0x0b
)

func station(side, who byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, side, who} }

// forwarded is what becomes of a packet that a router sends on.
func forwarded(side, who byte) oddity {
	return func(frame []byte) []byte {
		copy(frame, station(side, who))
		copy(frame[6:], station(side, 0))
		return aged(frame)
	}
}

// aged takes one from the TTL.
func aged(frame []byte) []byte {
	ttl := 8
	if isV6(frame) {
		ttl = 7
	}
	return l3Set(ttl, frame[atL3+ttl]-1)(frame)
}

// enterRouted makes a namespace that forwards, and moves the test to it. What
// it returns moves a subtest there.
func enterRouted(t *testing.T) (enter func(*testing.T)) {
	netns.Enter(t)
	ns, err := vnetns.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) {
		runtime.LockOSThread()
		before, err := vnetns.Get()
		if err == nil {
			err = vnetns.Set(ns)
		}
		if err != nil {
			t.Fatalf("enter the namespace of the world: %v", err)
		}
		t.Cleanup(func() {
			defer before.Close()
			if err := vnetns.Set(before); err != nil {
				t.Errorf("leave the namespace of the world: %v", err)
				return
			}
			runtime.UnlockOSThread()
		})
	}
}

// connect makes the networks of the routed world: a link to the clients' router
// and one to the backends.
func (s *scene) connect(t *testing.T) {
	t.Helper()
	gateway := clientOf(s.family, 3, 0).Addr()
	s.index = map[byte]int{
		toClients:  s.link(t, "cl-"+s.family.name, toClients, clientOf(s.family, 3, 1).Addr(), gateway),
		toBackends: s.link(t, "be-"+s.family.name, toBackends, s.host, s.at[near1].Addr()),
	}
	s.neighbour(t, s.index[toBackends], s.at[far1].Addr(), station(toBackends, 3))
	for which := 1; which < 3; which++ {
		to := netip.PrefixFrom(clientOf(s.family, which, 0).Addr(), s.host.BitLen()-14).Masked()
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: gateway.AsSlice()}); err != nil {
			t.Fatalf("route to %s: %v", to, err)
		}
	}
}

// link makes an interface with an address, and one neighbour behind it.
func (s *scene) link(t *testing.T, name string, side byte, own, other netip.Addr) (index int) {
	t.Helper()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s of link %s: %v", what, name, err)
		}
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: station(side, 0)},
		PeerName:  name + "-far",
	}
	must("creation", netlink.LinkAdd(veth))
	for _, end := range []string{name, name + "-far"} {
		l, err := netlink.LinkByName(end)
		must("look-up", err)
		must("start", netlink.LinkSetUp(l))
	}
	net := ipNet(netip.PrefixFrom(own, own.BitLen()-8))
	net.IP = own.AsSlice()
	must("address", netlink.AddrAdd(veth, &netlink.Addr{IPNet: net, Flags: 0x02 /* IFA_F_NODAD */}))
	s.neighbour(t, veth.Index, other, station(side, map[byte]byte{toClients: 1, toBackends: 2}[side]))
	return veth.Index
}

func (s *scene) neighbour(t *testing.T, link int, at netip.Addr, mac net.HardwareAddr) {
	t.Helper()
	n := &netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, IP: at.AsSlice(), HardwareAddr: mac}
	if err := netlink.NeighAdd(n); err != nil {
		t.Fatalf("neighbour %s: %v", at, err)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	_, n, err := net.ParseCIDR(p.Masked().String())
	if err != nil {
		panic(fmt.Sprintf("prefix %s: %v", p, err)) // it was one
	}
	return n
}

// settleRouted brings up three services: backends that are redirected to with
// the client's address and with the host's, and one by the stack.
func (s *scene) settleRouted() {
	index := uint32(s.index[toBackends])
	redirect := uint8(bpf.BackendRedirect | bpf.BackendXDP)
	s.backend(1, s.at[near1], backendOptions{flags: redirect, ifindex: index, frontend: 1})
	s.backend(2, s.at[far1], backendOptions{flags: redirect | bpf.BackendRemote, source: s.host, ifindex: index, frontend: 2})
	s.backend(3, s.at[stack1], backendOptions{ifindex: index, frontend: 3})
	s.backend(4, s.at[peer1], backendOptions{flags: redirect | bpf.BackendPeer, ifindex: index, frontend: 4})
	for _, proto := range []uint8{tcp, udp} {
		s.frontend(4, s.at[peerVIP], proto, 0, 4)
		s.frontend(1, s.at[nearVIP], proto, 0, 1)
		s.frontend(2, s.at[farVIP], proto, 0, 2)
		s.frontend(3, s.at[stackVIP], proto, 0, 3)
	}
}
