package bpf_test

import (
	"golang.org/x/sys/unix"
)

// counted is the counters of a packet with one verdict that has a name.
func counted(reason string) map[string]uint64 { return map[string]uint64{reason: 1} }

// fragmentCases are datagrams and segments in pieces.
func fragmentCases() []packetCase {
	body := make([]byte, 1024)
	piece := func(from, to role, ident uint32, offset uint16) sketch {
		return sketch{from, to, packet{proto: udp, payload: body, whole: 8 + 2*1024, ident: ident, fragment: offset}}
	}
	first := piece(client, vip, 1, 1)
	later := piece(client, vip, 1, 1032)
	segment := someTCP
	segment.ident, segment.fragment = 2, 1
	rest := segment
	rest.fragment = 24
	atomic := someTCP
	atomic.ident = 3
	answer := piece(stable, client, 4, 1)
	answerLater := piece(stable, client, 4, 1032)
	inTwo := aSYNsTally
	inTwo.Bytes[0] = 2 * 1024 // the first fragment says how much there will be
	replied := toClient
	replied.Bytes[1] = 2 * 1024
	foreign := sketch{client, vip, packet{proto: unix.IPPROTO_SCTP, payload: body, ident: 5, fragment: 1024}}
	sent := func(h hook, shapes ...sketch) func(*scene) {
		return func(s *scene) {
			s.send(ingress, someUDP)
			for _, k := range shapes {
				s.send(h, k)
			}
		}
	}
	leaving, leavingLater := piece(between, remote, 10, 1), piece(between, remote, 10, 1032)
	// The client has asked remoteVIP, and this has left since.
	natted := func(shapes ...sketch) func(*scene) {
		return func(s *scene) {
			s.send(ingress, someUDP.fromTo(client, remoteVIP))
			for _, k := range shapes {
				s.send(egress, k)
			}
		}
	}
	return []packetCase{
		{what: "first fragment", in: first, out: first.fromTo(client, stable), tally: inTwo},
		{what: "later fragment", before: sent(ingress, first), in: later, out: later.fromTo(client, stable), tally: toServer},
		{what: "later fragment of another datagram", before: sent(ingress, first), in: piece(client, vip, 9, 1032), reasons: counted("pass fragment")},
		{what: "later fragment of another client's datagram", before: sent(ingress, first), in: piece(another, vip, 1, 1032), reasons: counted("pass fragment")},
		{what: "later fragment after a foreign first one of its number", in: later, reasons: counted("pass fragment"),
			before: sent(ingress, first, piece(client, elsewhereOnVIP, 1, 1))},
		{what: "later fragment before its first", in: piece(client, vip, 1, 1032), reasons: counted("pass fragment")},
		{what: "later fragment of a datagram that was refused", in: rest.fromTo(client, vip), reasons: counted("pass fragment"),
			before: func(s *scene) { s.send(ingress, segment) }},
		{what: "later fragment of a foreign packet", in: piece(client, elsewhere, 7, 1032), reasons: counted("pass fragment")},
		{what: "first fragment of a segment", before: opened(vip, stable), in: segment, out: segment.fromTo(client, stable), tally: with5(toServer)},
		{what: "later fragment of a segment", in: rest, out: rest.fromTo(client, stable), tally: toServer, before: func(s *scene) {
			opened(vip, stable)(s)
			s.send(ingress, segment)
		}},
		{what: "fragment header on a whole packet", only: "IPv6", before: opened(vip, stable), in: atomic, out: atomic.fromTo(client, stable), tally: with5(toServer)},
		{what: "first fragment of a reply", hook: egress, before: sent(egress), in: answer, out: answer.fromTo(vip, client), tally: replied},
		{what: "later fragment of a reply", hook: egress, before: sent(egress, answer), in: answerLater, out: answerLater.fromTo(vip, client), tally: toClient},
		{what: "later fragment of a reply without its first", hook: egress, in: answerLater, reasons: counted("pass fragment")},
		{what: "source NAT: first fragment leaves", hook: egress, before: natted(), in: leaving, out: leaving.fromTo(onHost, remote)},
		{what: "source NAT: later fragment leaves", hook: egress, before: natted(leaving), in: leavingLater, out: leavingLater.fromTo(onHost, remote)},
		{what: "source NAT: later fragment of a request", before: func(s *scene) { s.send(ingress, piece(client, remoteVIP, 10, 1)) },
			in: piece(client, remoteVIP, 10, 1032), out: piece(between, remote, 10, 1032), tally: toServer},
		{what: "source NAT: later fragment of a reply arrives", in: piece(remote, onHost, 11, 1032), out: piece(remote, between, 11, 1032),
			before: func(s *scene) {
				natted()(s)
				s.send(ingress, piece(remote, onHost, 11, 1))
			}},
		{what: "first fragment that ends within the UDP header", in: sketch{client, vip, packet{proto: udp, ident: 6, fragment: 1}},
			odd: []oddity{cut(4), lengthPlus(-4)}, reasons: counted("pass malformed")},
		{what: "first fragment that ends within the UDP header, with padding", in: sketch{client, vip, packet{proto: udp, ident: 6, fragment: 1}},
			odd: []oddity{lengthPlus(-4)}, reasons: counted("pass malformed")},
		{what: "later fragment of another protocol", in: foreign, reasons: counted("pass protocol")},
	}
}

// refusalCases are packets to a frontend that get no flow: dropped at a virtual
// address, where nobody else could answer, passed at a real server's.
func refusalCases() []packetCase {
	fresh := aSYN
	other := aSYN
	other.seq = isn + 70000
	toRemote := aSYN.fromTo(client, remoteVIP)
	return []packetCase{
		{what: "stray segment", in: anACK, verdict: dropped, reasons: counted("drop no_flow")},
		{what: "stray segment to a real address", in: anACK.fromTo(client, realVIP), reasons: counted("pass no_flow")},
		{what: "stray RST", in: sketch{client, vip, packet{flags: rst, seq: 5}}, verdict: dropped, reasons: counted("drop no_flow")},
		{what: "stray SYN-ACK", in: sketch{client, vip, packet{flags: syn | ack, seq: 5}}, verdict: dropped, reasons: counted("drop no_flow")},
		{what: "SYN with FIN", in: sketch{client, vip, packet{flags: syn | fin, seq: 5}}, verdict: dropped, reasons: counted("drop no_flow")},
		{what: "SYN with RST", in: sketch{client, vip, packet{flags: syn | rst, seq: 5}}, verdict: dropped, reasons: counted("drop no_flow")},
		{what: "segment without flags", in: sketch{client, vip, packet{seq: 5}}, verdict: dropped, reasons: counted("drop no_flow")},
		{what: "no backend", in: aSYN.fromTo(client, emptyVIP), verdict: dropped, reasons: counted("drop no_backend")},
		{what: "no backend at a real address", in: aSYN.fromTo(client, emptyRealVIP), reasons: counted("pass no_backend")},
		{what: "new connection to a deleted frontend", in: aSYN.fromTo(client, deletedVIP), reasons: counted("pass frontend_deleted")},
		{what: "new connection to a deleted real frontend", in: aSYN.fromTo(client, deletedReal), reasons: counted("pass frontend_deleted")},
		{what: "table full", world: full, in: fresh, verdict: dropped, reasons: counted("drop table_full")},
		{what: "table full at a real address", world: full, in: fresh.fromTo(client, realVIP), reasons: counted("pass table_full")},
		{what: "too many handshakes", world: crowded, in: fresh, verdict: dropped, reasons: counted("drop quota")},
		{what: "too many handshakes at a real address", world: crowded, in: fresh.fromTo(client, realVIP), reasons: counted("pass quota")},
		{what: "no source port", world: exhausted, in: toRemote, verdict: dropped, reasons: counted("drop ports_exhausted")},
		{what: "no source port at a real address", world: exhausted, in: fresh.fromTo(client, remoteRealVIP), reasons: counted("pass ports_exhausted")},
		{what: "SYN takes a source port over", world: spared, in: toRemote, out: toRemote.fromTo(between, remote),
			reasons: noted("port_taken_over"), tally: aSYNsTally},
		{what: "a datagram finds source ports of its own", world: exhausted, in: someUDP.fromTo(client, remoteVIP),
			out: someUDP.fromTo(between, remote), tally: with5(aSYNsTally)},
		{what: "record in other hands", before: claimed, in: other, verdict: dropped,
			reasons: map[string]uint64{"drop busy": 1, "note reopened": 2}}, // tried twice
	}
}

// oddCases are what a packet may carry that is unusual, and must keep.
func oddCases() []packetCase {
	data, there := someTCP, someTCP.fromTo(client, stable)
	open := opened(vip, stable)
	tally := with5(toServer)
	options := aSYN
	options.options = 4
	optionsBack := sketch{stable, client, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, options: 4}}
	truncated := counted("pass truncated")
	malformed := counted("pass malformed")
	extension := counted("pass extension_header")
	return []packetCase{
		{what: "wrong TCP checksum stays as wrong", before: open, in: data, odd: []oddity{l4SumWrong}, out: there, tally: tally},
		{what: "wrong UDP checksum stays as wrong", in: someUDP, odd: []oddity{l4SumWrong}, out: someUDP.fromTo(client, stable), tally: with5(aSYNsTally)},
		{what: "wrong IP checksum stays as wrong", only: "IPv4", before: open, in: data, odd: []oddity{l3SumWrong}, out: there, tally: tally},
		{what: "Ethernet padding", before: open, in: data, odd: []oddity{trailed(11)}, out: there, tally: tally},
		{what: "DSCP and ECN", only: "IPv4", before: open, in: data, odd: []oddity{l3Set(1, 0xbb)}, out: there, tally: tally},
		{what: "traffic class and flow label", only: "IPv6", before: open, in: data, odd: []oddity{l3Set(0, 0x6b, 0xb1, 0x23, 0x45)}, out: there, tally: tally},
		{what: "don't fragment", only: "IPv4", before: open, in: data, odd: []oddity{l3Set(6, 0x40)}, out: there, tally: tally},
		{what: "no total length: a large aggregate", only: "IPv4", before: open, in: data, odd: []oddity{l3Set(2, 0, 0)}, out: there, tally: tally},
		{what: "no payload length: a large aggregate", only: "IPv6", before: open, in: data, odd: []oddity{l3Set(4, 0, 0)}, out: there, tally: tally},
		{what: "jumbo payload option", only: "IPv6", before: open, in: data, odd: []oddity{jumbo}, out: there, tally: tally},

		{what: "VLAN tag", before: open, in: data, odd: []oddity{tagged(unix.ETH_P_8021Q)}, out: there, tally: tally},
		{what: "two VLAN tags", before: open, in: data, odd: []oddity{tagged(unix.ETH_P_8021AD, unix.ETH_P_8021Q)}, out: there, tally: tally},
		{what: "three VLAN tags", before: open, in: data, odd: []oddity{tagged(unix.ETH_P_8021AD, unix.ETH_P_8021Q, unix.ETH_P_8021Q)}},
		{what: "SYN with a VLAN tag", in: aSYN, odd: []oddity{tagged(unix.ETH_P_8021Q)}, out: aSYN.fromTo(client, stable), tally: aSYNsTally},
		{what: "VLAN tag on a reply", hook: egress, before: open, in: sketch{stable, client, anACK.packet}, odd: []oddity{tagged(unix.ETH_P_8021Q)},
			out: sketch{vip, client, anACK.packet}, tally: toClient},

		{what: "IPv4 options", only: "IPv4", in: options, reasons: counted("pass ip_options")},
		{what: "IPv4 options on a reply", only: "IPv4", hook: egress, before: open, in: optionsBack},
		{what: "hop-by-hop options", only: "IPv6", before: open, in: data, odd: []oddity{extended(unix.IPPROTO_HOPOPTS)}, reasons: extension},
		{what: "routing header", only: "IPv6", before: open, in: data, odd: []oddity{extended(unix.IPPROTO_ROUTING)}, reasons: extension},
		{what: "destination options", only: "IPv6", before: open, in: data, odd: []oddity{extended(unix.IPPROTO_DSTOPTS)}, reasons: extension},
		{what: "three extension headers", only: "IPv6", before: open, in: data,
			odd: []oddity{extended(unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING)}, reasons: extension},
		{what: "extension header behind a fragment header", only: "IPv6", in: sketch{client, vip, packet{
			proto: unix.IPPROTO_DSTOPTS, ident: 8, fragment: 1, payload: append([]byte{tcp, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 24)...)}}, reasons: extension},
		{what: "extension header on a reply", only: "IPv6", hook: egress, before: open,
			in: sketch{stable, client, anACK.packet}, odd: []oddity{extended(unix.IPPROTO_DSTOPTS)}},

		{what: "frame shorter than the packet", before: open, in: data, odd: []oddity{cut(1)}, reasons: truncated},
		{what: "IP version of the other family", only: "IPv4", before: open, in: data, odd: []oddity{l3Set(0, 0x55)}, reasons: malformed},
		{what: "IP version 7", only: "IPv6", before: open, in: data, odd: []oddity{l3Set(0, 0x70)}, reasons: malformed},
		{what: "IP header of 16 bytes", only: "IPv4", before: open, in: data, odd: []oddity{l3Set(0, 0x44)}, reasons: malformed},
		{what: "IP header longer than the packet", only: "IPv4", before: open, in: aSYN, odd: []oddity{l3Set(0, 0x4f)}, reasons: malformed},
		{what: "packet that ends within the IP header", only: "IPv4", before: open, in: data, odd: []oddity{l3Set(2, 0, 19)}, reasons: malformed},
	}
}

func oddTCPCases() []packetCase {
	data, there := someTCP, someTCP.fromTo(client, stable)
	open := opened(vip, stable)
	options := data
	options.payload = append([]byte{1, 1, 1, 0}, hello...)
	malformed := counted("pass malformed")
	return []packetCase{
		{what: "TCP options", before: open, in: options, odd: []oddity{l4Set(12, 6<<4)}, out: options.fromTo(client, stable), tally: with5(toServer)},
		{what: "urgent data", before: open, in: data, odd: []oddity{l4Set(13, ack|0x20), l4Set(18, 0, 5)}, out: there, tally: with5(toServer)},
		{what: "ECN echo on a SYN", in: aSYN, odd: []oddity{l4Set(13, syn|0xc0)}, out: aSYN.fromTo(client, stable), tally: aSYNsTally},
		{what: "TCP header of 16 bytes", before: open, in: data, odd: []oddity{l4Set(12, 4<<4)}, reasons: malformed},
		{what: "TCP header longer than the packet", before: open, in: data, odd: []oddity{l4Set(12, 7<<4)}, reasons: malformed},
		{what: "packet that ends within the TCP header", before: open, in: anACK, odd: []oddity{cut(1), lengthPlus(-1)}, reasons: malformed},
		{what: "packet that ends within the TCP header, with padding", before: open, in: anACK, odd: []oddity{lengthPlus(-1)}, reasons: malformed},
	}
}

func oddUDPCases() []packetCase {
	there := someUDP.fromTo(client, stable)
	malformed := counted("pass malformed")
	short := aSYNsTally
	short.Bytes[0] = 3
	return []packetCase{
		{what: "UDP length below that of its header", in: someUDP, odd: []oddity{udpLength(7)}, reasons: malformed},
		{what: "UDP length of zero", in: someUDP, odd: []oddity{udpLength(0)}, reasons: malformed},
		{what: "UDP length beyond the packet", in: someUDP, odd: []oddity{udpLength(14)}, reasons: malformed},
		{what: "UDP length short of the packet", in: someUDP, odd: []oddity{udpLength(11)}, out: there, tally: short},
		{what: "packet that ends within the UDP header", in: sketch{client, vip, packet{proto: udp}}, odd: []oddity{cut(1), lengthPlus(-1)}, reasons: malformed},
	}
}

// foreignCases pass untouched.
func foreignCases() []packetCase {
	body := make([]byte, 24)
	of := func(proto uint8) sketch { return sketch{client, vip, packet{proto: proto, payload: body}} }
	protocol := counted("pass protocol")
	arp := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06}, make([]byte, 28)...)
	all := []packetCase{
		{what: "another address", in: aSYN.fromTo(client, elsewhere)},
		{what: "another address at egress", hook: egress, in: aSYN.fromTo(client, elsewhere)},
		{what: "datagram to another address", in: someUDP.fromTo(client, elsewhere)},
		{what: "to a frontend's address and a backend's port", in: sketch{vip, stable, aSYN.packet}},
		{what: "datagram to a frontend of TCP only", in: someUDP.fromTo(client, realVIP)},
		{what: "to a backend itself", before: opened(vip, stable), in: someTCP.fromTo(client, stable)},
		{what: "frame of another host", on: "tc", before: opened(vip, stable), in: someTCP, odd: []oddity{otherHost}},
		{what: "SCTP", in: of(unix.IPPROTO_SCTP), reasons: protocol},
		{what: "SCTP at egress", hook: egress, in: of(unix.IPPROTO_SCTP).fromTo(stable, client)},
		{what: "UDP-Lite", in: of(unix.IPPROTO_UDPLITE), reasons: protocol},
		{what: "GRE", in: of(unix.IPPROTO_GRE), reasons: protocol},
		{what: "ESP", in: of(unix.IPPROTO_ESP), reasons: protocol},
		{what: "AH", in: of(unix.IPPROTO_AH), reasons: protocol},
		{what: "IP in IP", in: of(unix.IPPROTO_IPIP), reasons: protocol},
		{what: "IPv6 in IP", in: of(unix.IPPROTO_IPV6), reasons: protocol},
		{what: "no next header", in: of(59), reasons: protocol},
		{what: "the other family's ICMP", only: "IPv4", in: of(unix.IPPROTO_ICMPV6), reasons: protocol},
		{what: "the other family's ICMP", only: "IPv6", in: of(unix.IPPROTO_ICMP), reasons: protocol},
		{what: "IPv6 to an IPv4 address of ours", only: "IPv4", in: mapped(aSYN)},
		{what: "IPv6 from an IPv4 address of ours", only: "IPv4", hook: egress, before: opened(vip, stable), in: mapped{stable, client, anACK.packet}},
		{what: "ARP", only: "IPv4", in: raw(arp)},
	}
	return all
}
