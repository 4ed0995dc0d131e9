package bpf_test

import (
	"bytes"

	"siskin.dev/siskin/bpf"
)

func packetCases() []packetCase {
	var all []packetCase
	for _, part := range [][]packetCase{
		newFlowCases(), flowCases(), replyCases(), sourceNATCases(), icmpCases(), fragmentCases(),
		redirectCases(), cutoffCases(), refusalCases(), oddCases(), oddTCPCases(), oddUDPCases(), foreignCases(),
	} {
		all = append(all, part...)
	}
	return all
}

var (
	hello   = []byte("hello")
	aSYN    = sketch{client, vip, packet{flags: syn, seq: isn}}
	anACK   = sketch{client, vip, packet{flags: ack, seq: isn + 1, ack: serverISN + 1}}
	someTCP = sketch{client, vip, packet{flags: ack, seq: isn + 1, ack: serverISN + 1, payload: hello}}
	someUDP = sketch{client, vip, packet{proto: udp, payload: hello}}

	aSYNsTally = bpf.Tally{Opened: 1, Packets: [2]uint64{1, 0}}
	toServer   = bpf.Tally{Packets: [2]uint64{1, 0}}
	toClient   = bpf.Tally{Packets: [2]uint64{0, 1}}
)

// with5 is a tally with the five bytes of "hello".
func with5(t bpf.Tally) bpf.Tally {
	t.Bytes = [2]uint64{5 * t.Packets[0], 5 * t.Packets[1]}
	return t
}

// noted is the counters of a flow that was steered in an unusual way.
func noted(reason string) map[string]uint64 { return map[string]uint64{"note " + reason: 1} }

// newFlowCases are first packets, and what makes a flow anew.
func newFlowCases() []packetCase {
	data := aSYN
	data.payload = hello
	return []packetCase{
		{what: "SYN", in: aSYN, out: aSYN.fromTo(client, stable), tally: aSYNsTally},
		{what: "SYN with data", in: data, out: data.fromTo(client, stable), tally: with5(aSYNsTally)},
		{what: "SYN to a real server's address", in: aSYN.fromTo(client, realVIP), out: aSYN.fromTo(client, stable), tally: aSYNsTally},
		{what: "datagram", in: someUDP, out: someUDP.fromTo(client, stable), tally: with5(aSYNsTally)},
		{what: "datagram without a checksum", only: "IPv4",
			in:  sketch{client, vip, packet{proto: udp, payload: hello, noSum: true}},
			out: sketch{client, stable, packet{proto: udp, payload: hello, noSum: true}}, tally: with5(aSYNsTally)},
		{what: "empty datagram", in: sketch{client, vip, packet{proto: udp}}, out: sketch{client, stable, packet{proto: udp}}, tally: aSYNsTally},
		{what: "SYN to a version without backends", in: aSYN.fromTo(client, canaryVIP), out: aSYN.fromTo(client, stable),
			reasons: noted("version_empty"), tally: aSYNsTally},
		{what: "SYN again", before: asked(vip, aSYN.packet), in: aSYN, out: aSYN.fromTo(client, stable), tally: toServer},
		{what: "SYN again after the canary was taken back", before: takenBack, in: aSYN, out: aSYN.fromTo(client, stable),
			reasons: noted("rechosen"), tally: bpf.Tally{Opened: 1, Closed: 1, Forgotten: 1, Packets: [2]uint64{1, 0}}},
		{what: "SYN on a closed connection", before: closed(vip, stable), in: aSYN, out: aSYN.fromTo(client, stable),
			reasons: noted("reopened"), tally: bpf.Tally{Opened: 1, Forgotten: 1, Packets: [2]uint64{1, 0}}},
		{what: "SYN of an open connection", before: opened(vip, stable), in: aSYN, out: aSYN.fromTo(client, stable), tally: toServer},
		{what: "SYN after the client's FIN", before: afterFIN(client), in: aSYN, out: aSYN.fromTo(client, stable), reasons: noted("reopened"),
			tally: bpf.Tally{Opened: 1, Closed: 1, Forgotten: 1, Packets: [2]uint64{1, 0}}},
		{what: "SYN after the server's FIN", before: afterFIN(stable), in: aSYN, out: aSYN.fromTo(client, stable), reasons: noted("reopened"),
			tally: bpf.Tally{Opened: 1, Closed: 1, Forgotten: 1, Packets: [2]uint64{1, 0}}},
		{what: "SYN from one port to two frontends", before: opened(vip, stable), in: aSYN.fromTo(client, identityVIP),
			out: aSYN.fromTo(client, identity), tally: aSYNsTally},
		{what: "datagram between the ends of a connection", before: opened(vip, stable), in: someUDP, out: someUDP.fromTo(client, stable),
			tally: with5(aSYNsTally)},
		{what: "SYN from a port that leads to the backend already", before: opened(firstVIP, shared),
			in: aSYN.fromTo(client, secondVIP), out: aSYN.fromTo(between, shared), reasons: noted("port_moved"), tally: aSYNsTally},
	}
}

// afterFIN is a scene in which one end has closed its half of a connection.
func afterFIN(who role) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		opened(vip, stable)(s)
		if who == client {
			s.send(ingress, sketch{client, vip, packet{flags: fin | ack, seq: isn + 1, ack: serverISN + 1}})
			return
		}
		s.send(egress, sketch{who, client, packet{flags: fin | ack, seq: serverISN + 1, ack: isn + 1}})
	}
}

// flowCases are later packets of the client.
func flowCases() []packetCase {
	long := someTCP
	long.payload = bytes.Repeat([]byte("0123456"), 200)
	bye := anACK
	bye.flags |= fin
	cut := sketch{client, vip, packet{flags: rst, seq: isn + 1}}
	forged := sketch{client, vip, packet{flags: rst, seq: isn + 1<<29}}
	guess := anACK
	guess.ack = 1 << 28
	late := someTCP
	late.ttl = 1
	tally := func(t bpf.Tally, closed uint64) bpf.Tally {
		t.Closed = closed
		return t
	}
	first := bpf.Tally{Established: 1, Packets: [2]uint64{1, 0}}
	return []packetCase{
		{what: "ACK of the handshake", in: anACK, out: anACK.fromTo(client, stable), tally: first, before: func(s *scene) {
			s.send(ingress, aSYN)
			s.send(egress, sketch{stable, client, packet{flags: syn | ack, seq: serverISN, ack: isn + 1}})
		}},
		{what: "ACK of a handshake by a guess", in: guess, out: guess.fromTo(client, stable), tally: toServer, before: func(s *scene) {
			s.send(ingress, aSYN)
			s.send(egress, sketch{stable, client, packet{flags: syn | ack, seq: serverISN, ack: isn + 1}})
		}},
		{what: "ACK", before: opened(vip, stable), in: anACK, out: anACK.fromTo(client, stable), tally: toServer},
		{what: "data", before: opened(vip, stable), in: someTCP, out: someTCP.fromTo(client, stable), tally: with5(toServer)},
		{what: "data of 1,400 bytes", before: opened(vip, stable), in: long, out: long.fromTo(client, stable),
			tally: bpf.Tally{Packets: [2]uint64{1, 0}, Bytes: [2]uint64{1400, 0}}},
		{what: "aggregate of three segments", on: "tc", before: opened(vip, stable), in: long, segments: 3, out: long.fromTo(client, stable),
			tally: bpf.Tally{Packets: [2]uint64{3, 0}, Bytes: [2]uint64{1400, 0}}},
		{what: "data again", in: someTCP, out: someTCP.fromTo(client, stable), before: func(s *scene) {
			opened(vip, stable)(s)
			s.send(ingress, someTCP)
		}, tally: bpf.Tally{Packets: [2]uint64{1, 0}, Retransmits: [2]uint64{1, 0}}},
		{what: "data with a hop to live", before: opened(vip, stable), in: late, out: late.fromTo(client, stable),
			reasons: noted("last_hop"), tally: with5(toServer)},
		{what: "FIN", before: opened(vip, stable), in: bye, out: bye.fromTo(client, stable), tally: toServer},
		{what: "RST", before: opened(vip, stable), in: cut, out: cut.fromTo(client, stable), tally: tally(toServer, 1)},
		{what: "RST by a guess", before: opened(vip, stable), in: forged, out: forged.fromTo(client, stable), tally: toServer},
		{what: "late packet of a closed connection", before: closed(vip, stable), in: anACK, out: anACK.fromTo(client, stable), tally: toServer},
		{what: "another datagram", before: asked(vip, someUDP.packet), in: someUDP, out: someUDP.fromTo(client, stable), tally: with5(toServer)},
		{what: "data on a deleted frontend", in: someTCP.fromTo(client, deletedVIP), out: someTCP.fromTo(client, stable),
			tally: with5(toServer), before: func(s *scene) {
				key := bpf.TupleFrom(s.at[deletedVIP], tcp)
				s.frontend(3, s.at[deletedVIP], tcp, 0, 1)
				opened(deletedVIP, stable)(s)
				s.put(s.Frontends, key, bpf.Frontend{Id: 3, Flags: bpf.FrontendRetired})
			}},
	}
}

// replyCases are what backends on this host send.
func replyCases() []packetCase {
	reply := sketch{stable, client, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}}
	answer := sketch{stable, client, packet{proto: udp, payload: hello}}
	refusal := sketch{stable, client, packet{flags: rst | ack, ack: isn + 1}}
	reset := sketch{stable, client, packet{flags: rst, seq: serverISN + 1}}
	welcome := sketch{stable, client, packet{flags: syn | ack, seq: serverISN, ack: isn + 1}}
	own := reply.fromTo(stable, another)
	return []packetCase{
		{what: "SYN-ACK", hook: egress, before: asked(vip, aSYN.packet), in: welcome, out: welcome.fromTo(vip, client), tally: toClient},
		{what: "response", hook: egress, before: opened(vip, stable), in: reply, out: reply.fromTo(vip, client), tally: with5(toClient)},
		{what: "answering datagram", hook: egress, before: asked(vip, someUDP.packet), in: answer, out: answer.fromTo(vip, client), tally: with5(toClient)},
		{what: "refusal", hook: egress, before: asked(vip, aSYN.packet), in: refusal, out: refusal.fromTo(vip, client),
			tally: bpf.Tally{Refused: 1, Closed: 1, Packets: [2]uint64{0, 1}}},
		{what: "reset by the server", hook: egress, before: opened(vip, stable), in: reset, out: reset.fromTo(vip, client),
			tally: bpf.Tally{Reset: 1, Closed: 1, Packets: [2]uint64{0, 1}}},
		{what: "reply to the backend's own client", hook: egress, in: own},
		{what: "reply of another backend than the flow's", hook: egress, before: opened(vip, stable), in: reply.fromTo(canary, client)},
		{what: "reply to another port", hook: egress, before: opened(vip, stable), in: sketch{stable, elsewhere, reply.packet}},
		{what: "reply that comes in by an interface", before: opened(vip, stable), in: reply}, // it waits for the egress
		{what: "reply of a real server's own address", hook: egress, before: opened(identityVIP, identity), in: reply.fromTo(identity, client), tally: with5(toClient)},
		{what: "reply of a real server's own address comes in", before: opened(identityVIP, identity), in: reply.fromTo(identity, client)},
		{what: "reply on a port that was moved", hook: egress, in: reply.fromTo(shared, between), out: reply.fromTo(secondVIP, client),
			tally: with5(toClient), before: func(s *scene) {
				opened(firstVIP, shared)(s)
				s.send(ingress, aSYN.fromTo(client, secondVIP))
				s.send(egress, welcome.fromTo(shared, between))
				s.send(ingress, anACK.fromTo(client, secondVIP))
			}},
		{what: "reply of odd length with a wrong checksum", hook: egress, before: opened(vip, stable), in: reply,
			odd: []oddity{l4SumWrong}, out: reply.fromTo(vip, client), tally: with5(toClient)},
	}
}

// sourceNATCases follow packets of remoteVIP over both hooks.
func sourceNATCases() []packetCase {
	data := someTCP.fromTo(client, remoteVIP)
	reply := sketch{remote, onHost, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}}
	own := reply
	own.flags = ack | fin
	return []packetCase{
		{what: "source NAT: SYN", in: aSYN.fromTo(client, remoteVIP), out: aSYN.fromTo(between, remote), tally: aSYNsTally},
		{what: "source NAT: datagram", in: someUDP.fromTo(client, remoteVIP), out: someUDP.fromTo(between, remote), tally: with5(aSYNsTally)},
		{what: "source NAT: data", before: opened(remoteVIP, remote), in: data, out: data.fromTo(between, remote), tally: with5(toServer)},
		{what: "source NAT: data leaves", hook: egress, before: opened(remoteVIP, remote), in: data.fromTo(between, remote), out: data.fromTo(onHost, remote)},
		{what: "source NAT: reply arrives", before: opened(remoteVIP, remote), in: reply, out: reply.fromTo(remote, between)},
		{what: "source NAT: reply leaves", hook: egress, before: opened(remoteVIP, remote), in: reply.fromTo(remote, between),
			out: reply.fromTo(remoteVIP, client), tally: with5(toClient)},
		{what: "source NAT: reply to a port that nobody has", in: sketch{remote, host, own.packet}},
		{what: "source NAT: the host's SYN from the same port", hook: egress, before: func(s *scene) {
			opened(remoteVIP, remote)(s)
			s.send(egress, data.fromTo(between, remote))
		}, in: aSYN.fromTo(onHost, remote), verdict: dropped, reasons: counted("drop host_port")},
		{what: "source NAT: the host's own connection", hook: egress, before: opened(remoteVIP, remote), in: sketch{host, remote, anACK.packet}},
	}
}

// icmpCases are errors about steered packets; icmp_test.go has all kinds of
// them in all directions.
func icmpCases() []packetCase {
	sent := sketch{client, vip, packet{flags: syn, seq: isn, payload: hello}}
	inside := sent.fromTo(client, stable)
	stranger := aSYN.fromTo(another, stable)
	replied := sketch{vip, client, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}}
	translated := noted("icmp_translated")
	return []packetCase{
		{what: "too big, about a request", hook: egress, before: asked(vip, sent.packet), in: complaint{middle, client, 0, inside, 64},
			out: complaint{vip, client, 0, sent, 64}, reasons: translated},
		{what: "too big, about a request, 8 bytes quoted", hook: egress, before: asked(vip, sent.packet), in: complaint{middle, client, 0, inside, 8},
			out: complaint{vip, client, 0, sent, 8}, reasons: translated},
		{what: "unreachable, about a SYN", hook: egress, before: asked(vip, sent.packet), in: complaint{stable, client, 1, inside, 8},
			out: complaint{vip, client, 1, sent, 8}, reasons: translated, tally: bpf.Tally{Unreachable: 1}},
		{what: "too big, about a response", before: opened(vip, stable), in: complaint{middle, vip, 0, replied, 8},
			out: complaint{middle, stable, 0, replied.fromTo(stable, client), 8}, reasons: translated},
		{what: "error about a packet to the backend that is not ours", hook: egress, in: complaint{middle, another, 1, stranger, 8},
			reasons: map[string]uint64{"pass icmp_no_flow": 1}},
		{what: "error about a response that is not ours", in: complaint{middle, vip, 0, replied, 8},
			reasons: map[string]uint64{"pass icmp_no_flow": 1}},
		{what: "error about foreign packets", in: complaint{middle, elsewhere, 0, sketch{elsewhere, client, packet{flags: ack, noSum: true}}, 8}},
		{what: "error about packets of no flow", in: complaint{middle, vip, 0, sketch{vip, client, packet{flags: ack, noSum: true}}, 8},
			reasons: map[string]uint64{"pass icmp_no_flow": 1}},
		{what: "error that quotes too little", before: opened(vip, stable), in: complaint{middle, vip, 0, replied, 7}},
		{what: "echo to a virtual address", in: ping{client, vip, false}, verdict: answered, out: ping{vip, client, true},
			reasons: noted("echo_answered")},
		{what: "echo to a backend", in: ping{client, stable, false}},
	}
}
