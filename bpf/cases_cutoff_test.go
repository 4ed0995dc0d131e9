package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// cutoffCases play in a world in which all versions are taken back: what was
// open on a canary ends with its next packet. On tc a packet becomes two: what
// goes on in its place, and what goes back to who sent it.
func cutoffCases() []packetCase {
	all := append(cutRequestCases(), cutReplyCases()...)
	all = append(all, cutRedirectCases()...)
	all = append(all, spareCases()...)
	for i := range all {
		c := &all[i]
		c.world = undone
		if c.reasons["note cut_off"]+c.reasons["note cut_off_again"] > 0 {
			c.out = anew(c.out.(sketch))
		}
		if back, ok := c.back.(sketch); ok {
			c.back = anew(back)
		}
	}
	return all
}

var (
	cutOff   = noted("cut_off")
	cutAgain = noted("cut_off_again")
	// What ends a flow is a packet of it, too.
	cutByClient = bpf.Tally{Closed: 1, Packets: [2]uint64{1, 0}}
	cutByServer = bpf.Tally{Closed: 1, Packets: [2]uint64{0, 1}}

	cutVIP = cutBegun(vip, canary)
	// The numbers that both ends expect next.
	toTheClient = sketch{vip, client, packet{flags: rst, seq: serverISN + 1}}
	toTheServer = sketch{client, canary, packet{flags: rst, seq: isn + 1}}
)

// cutBegun is a scene with a connection on a canary that has been taken back,
// and is cut off.
func cutBegun(to, by role) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		s.onCanary(opened(to, by))
		s.cutoffs().Begin(0, bpf.NonStable, 0)
	}
}

// onCanary plays while everything is given to the canary.
func (s *scene) onCanary(before func(*scene)) {
	s.t.Helper()
	s.weight(bpf.Buckets)
	before(s)
	s.weight(0)
}

// then is a scene that goes on with a packet.
func then(before func(*scene), h hook, in shape) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		before(s)
		s.send(h, in)
	}
}

// cutRequestCases are what clients send.
func cutRequestCases() []packetCase {
	probe, ahead, aggregate, piece := someTCP, someTCP, someTCP, someTCP
	probe.seq, probe.payload = isn, nil // keep-alive
	ahead.seq += 1000                   // what was before it is lost
	aggregate.payload = bytes.Repeat(hello, 560)
	piece.ident, piece.fragment = 9, 1
	later := toTheServer
	later.seq += 1000
	remoteData := someTCP.fromTo(client, remoteVIP)
	realData := someTCP.fromTo(client, realVIP)
	tc := []packetCase{
		{what: "cut: request", in: someTCP, out: toTheServer, back: toTheClient},
		{what: "cut: keep-alive probe", in: probe, out: toTheServer, back: toTheClient},
		{what: "cut: request ahead of what was seen", in: ahead, out: later, back: toTheClient},
		{what: "cut: ACK", in: anACK, out: toTheServer, back: toTheClient},
		{what: "cut: aggregate of segments", in: aggregate, segments: 2, out: toTheServer, back: toTheClient},
		{what: "cut: first fragment", in: piece, out: toTheServer, back: toTheClient},
		{what: "cut: request with a wrong checksum", in: garbled(someTCP), out: toTheServer, back: toTheClient},
		{what: "cut: request with a VLAN tag", in: someTCP, odd: []oddity{tagged(0x8100)}, out: toTheServer, back: toTheClient},
		{what: "cut: request with two VLAN tags", in: someTCP, odd: []oddity{tagged(0x88a8, 0x8100)}, out: toTheServer, back: toTheClient},
		{what: "cut: request, source NAT", before: cutBegun(remoteVIP, remote), in: remoteData,
			out: toTheServer.fromTo(between, remote), back: toTheClient.fromTo(remoteVIP, client)},
		{what: "cut: request to a real server's address", before: cutBegun(realVIP, shared), in: realData,
			out: toTheServer.fromTo(client, shared), back: toTheClient.fromTo(realVIP, client)},
	}
	for i := range tc {
		c := &tc[i]
		c.on, c.by = "tc", toClients
		c.reasons, c.tally = cutOff, cutByClient
		if c.before == nil {
			c.before = cutVIP
		}
	}
	again := []packetCase{
		{what: "cut: request after a request", on: "tc", before: then(cutVIP, ingress, someTCP), in: someTCP, out: toTheClient},
		{what: "cut: request after a response", on: "tc", before: then(cutVIP, egress, someTCP.fromTo(canary, client)), in: someTCP, out: toTheClient},
	}
	for i := range again {
		again[i].verdict, again[i].reasons, again[i].by, again[i].hop = answered, cutAgain, toClients, []oddity{turned}
	}
	xdp := []packetCase{
		{what: "cut by XDP: request", before: cutVIP, in: someTCP, out: toTheClient, reasons: cutOff, tally: bpf.Tally{Closed: 1}},
		{what: "cut by XDP: request with a VLAN tag", before: cutVIP, in: someTCP, odd: []oddity{tagged(0x8100)}, out: toTheClient,
			reasons: cutOff, tally: bpf.Tally{Closed: 1}},
		{what: "cut by XDP: request, source NAT", before: cutBegun(remoteVIP, remote), in: remoteData, out: toTheClient.fromTo(remoteVIP, client),
			reasons: cutOff, tally: bpf.Tally{Closed: 1}},
		{what: "cut by XDP: request after a request", before: then(cutVIP, ingress, someTCP), in: someTCP, out: toTheClient, reasons: cutAgain},
	}
	for i := range xdp {
		xdp[i].on, xdp[i].verdict, xdp[i].by, xdp[i].hop = "XDP", answered, toClients, []oddity{turned}
	}
	return append(append(tc, again...), xdp...)
}

// cutReplyCases are what backends send, as it leaves.
func cutReplyCases() []packetCase {
	reply := sketch{canary, client, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}}
	probe, acked := reply, reply
	probe.seq, probe.payload = serverISN, nil
	acked.ack += 5 // what the server has had, and we have not seen
	more := toTheServer
	more.seq += 5
	all := []packetCase{
		{what: "cut: response", in: reply, out: toTheClient, back: toTheServer},
		{what: "cut: the server's keep-alive probe", in: probe, out: toTheClient, back: toTheServer},
		{what: "cut: response to more than was seen", in: acked, out: toTheClient, back: more},
		{what: "cut: response with a VLAN tag", in: reply, odd: []oddity{tagged(0x8100)}, out: toTheClient, back: toTheServer},
		{what: "cut: response, source NAT", before: cutBegun(remoteVIP, remote), in: reply.fromTo(remote, between),
			out: toTheClient.fromTo(remoteVIP, client), back: toTheServer.fromTo(between, remote)},
		{what: "cut: response of a real server's address", before: cutBegun(realVIP, shared), in: reply.fromTo(shared, client),
			out: toTheClient.fromTo(realVIP, client), back: toTheServer.fromTo(client, shared)},
	}
	for i := range all {
		c := &all[i]
		c.reasons, c.tally = cutOff, cutByServer
		if c.before == nil {
			c.before = cutVIP
		}
	}
	all = append(all,
		packetCase{what: "cut: response after a request", before: then(cutVIP, ingress, someTCP), in: reply, out: toTheServer,
			verdict: answered, reasons: cutAgain, hop: []oddity{turned}},
		packetCase{what: "cut: FIN of the server after a request", before: then(cutVIP, ingress, someTCP),
			in:  sketch{canary, client, packet{flags: fin | ack, seq: serverISN + 1, ack: isn + 1}},
			out: toTheServer, verdict: answered, reasons: cutAgain, hop: []oddity{turned}})
	for i := range all {
		all[i].hook, all[i].by = egress, toClients
	}
	return all
}

// cutRedirectCases are flows that go past the stack, where they come in.
func cutRedirectCases() []packetCase {
	near := func(k sketch) sketch { return k.fromTo(client, nearVIP) }
	reply := sketch{near1, client, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}}
	home := toTheClient.fromTo(nearVIP, client)
	hidden, far := reply.fromTo(far1, onHost), toTheClient.fromTo(farVIP, client)
	cutNear, cutFar := cutBegun(nearVIP, near1), cutBegun(farVIP, far1)
	toNear, toFar, toHome := []oddity{forwarded(toBackends, 2)}, []oddity{forwarded(toBackends, 3)}, []oddity{forwarded(toClients, 1)}
	return []packetCase{
		{what: "cut past the stack: request", on: "tc", by: toClients, before: cutNear, in: near(someTCP), verdict: sent,
			out: toTheServer.fromTo(client, near1), hop: toNear, back: home, reasons: cutOff, tally: cutByClient},
		{what: "cut past the stack: request, source NAT", on: "tc", by: toClients, before: cutFar, in: someTCP.fromTo(client, farVIP), verdict: sent,
			out: toTheServer.fromTo(onHost, far1), hop: toFar, back: far, reasons: cutOff, tally: cutByClient},
		{what: "cut past the stack: reply", on: "tc", by: toBackends, before: cutNear, in: reply, verdict: sent,
			out: home, hop: toHome, back: toTheServer.fromTo(client, near1), reasons: cutOff, tally: cutByServer},
		{what: "cut past the stack: reply, source NAT", on: "tc", by: toBackends, before: cutFar, in: hidden, verdict: sent,
			out: far, hop: toHome, back: toTheServer.fromTo(onHost, far1), reasons: cutOff, tally: cutByServer},
		{what: "cut by XDP: reply", on: "XDP", by: toBackends, before: cutNear, in: reply, verdict: sent,
			out: home, hop: toHome, reasons: cutOff, tally: cutByServer},
		{what: "cut by XDP: reply, source NAT", on: "XDP", by: toBackends, before: cutFar, in: hidden, verdict: sent,
			out: far, hop: toHome, reasons: cutOff, tally: cutByServer},
		{what: "cut past the stack: reply after a request", by: toBackends, before: then(cutNear, ingress, near(someTCP)), in: reply, verdict: answered,
			out: toTheServer.fromTo(client, near1), hop: []oddity{turned}, reasons: cutAgain},
		{what: "cut past the stack: reply after a request, source NAT", by: toBackends, before: then(cutFar, ingress, someTCP.fromTo(client, farVIP)),
			in: hidden, verdict: answered, out: toTheServer.fromTo(onHost, far1), hop: []oddity{turned}, reasons: cutAgain},
	}
}

// spareCases are what a cutoff leaves alone.
func spareCases() []packetCase {
	ends := sketch{client, vip, packet{flags: rst | ack, seq: isn + 1, ack: serverISN + 1}}
	serverEnds := sketch{canary, client, packet{flags: rst | ack, seq: serverISN + 1, ack: isn + 1}}
	bye := sketch{canary, client, packet{flags: fin | ack, seq: serverISN + 1, ack: isn + 1}}
	guess := someTCP
	guess.ack = 1 << 28
	welcome := sketch{canary, client, packet{flags: syn | ack, seq: serverISN, ack: isn + 1}}
	onto := func(k sketch) sketch { return k.fromTo(client, canary) }
	asked := func(s *scene) {
		s.onCanary(asked(vip, aSYN.packet))
		s.cutoffs().Begin(0, bpf.NonStable, 0)
	}
	talking := func(s *scene) {
		s.onCanary(func(s *scene) {
			s.send(ingress, someUDP)
			s.send(egress, someUDP.fromTo(canary, client))
			s.send(ingress, someUDP)
		})
		s.cutoffs().Begin(0, bpf.NonStable, 0)
	}
	resteered := bpf.Tally{Opened: 1, Closed: 1, Forgotten: 1, Packets: [2]uint64{1, 0}}
	return []packetCase{
		{what: "cutoff: RST of the client", before: cutVIP, in: ends, out: onto(ends), tally: cutByClient},
		{what: "cutoff: RST of the client after the cut", before: then(cutVIP, ingress, someTCP), in: ends, out: onto(ends), tally: toServer},
		{what: "cutoff: RST of the server", hook: egress, before: cutVIP, in: serverEnds, out: serverEnds.fromTo(vip, client),
			tally: bpf.Tally{Reset: 1, Closed: 1, Packets: [2]uint64{0, 1}}},
		{what: "cutoff: RST of the server after the cut", hook: egress, before: then(cutVIP, ingress, someTCP), in: serverEnds,
			out: serverEnds.fromTo(vip, client), tally: toClient},
		{what: "cutoff: FIN of the server", hook: egress, before: cutVIP, in: bye, out: bye.fromTo(vip, client), tally: toClient},
		{what: "cutoff: ACK after the server's FIN", before: then(cutVIP, egress, bye), in: anACK, out: onto(anACK), tally: toServer},
		{what: "cutoff: guess in the client's name", before: cutVIP, in: guess, out: onto(guess), tally: toServer},
		{what: "cutoff: SYN of an open connection", before: cutVIP, in: aSYN, out: onto(aSYN), tally: toServer},
		{what: "cutoff: SYN after the cut", before: then(cutVIP, ingress, someTCP), in: aSYN, out: aSYN.fromTo(client, stable),
			reasons: noted("reopened"), tally: bpf.Tally{Opened: 1, Forgotten: 1, Packets: [2]uint64{1, 0}}},
		{what: "cutoff: SYN again", before: asked, in: aSYN, out: aSYN.fromTo(client, stable), reasons: noted("rechosen"), tally: resteered},
		{what: "cutoff: SYN-ACK", hook: egress, before: asked, in: welcome, out: welcome.fromTo(vip, client), tally: toClient},
		{what: "cutoff: stable's connection", in: someTCP, out: someTCP.fromTo(client, stable), tally: with5(toServer), before: func(s *scene) {
			opened(vip, stable)(s)
			s.cutoffs().Begin(0, bpf.NonStable|bpf.SlotsOf(0), 0)
		}},
		{what: "cutoff: another version's connection", before: func(s *scene) {
			s.onCanary(opened(vip, canary))
			s.cutoffs().End(0)
			s.cutoffs().Begin(0, bpf.SlotsOf(2), 0)
		}, in: someTCP, out: onto(someTCP), tally: with5(toServer)},
		{what: "cutoff: another word's connection", before: func(s *scene) {
			s.onCanary(opened(vip, canary))
			s.cutoffs().End(0)
			s.cutoffs().Begin(1, bpf.NonStable, 0)
		}, in: someTCP, out: onto(someTCP), tally: with5(toServer)},
		{what: "cutoff: younger connection", before: func(s *scene) {
			s.cutoffs().Begin(0, bpf.NonStable, 0)
			s.onCanary(opened(vip, canary))
		}, in: someTCP, out: onto(someTCP), tally: with5(toServer)},
		{what: "cutoff: request before the deadline", before: func(s *scene) {
			s.onCanary(opened(vip, canary))
			s.cutoffs().Begin(0, bpf.NonStable, time.Hour)
		}, in: someTCP, out: onto(someTCP), tally: with5(toServer)},
		{what: "cutoff that is over", before: func(s *scene) {
			cutVIP(s)
			s.cutoffs().End(0)
		}, in: someTCP, out: onto(someTCP), tally: with5(toServer)},
		{what: "cutoff: datagram", before: talking, in: someUDP, out: someUDP.fromTo(client, stable), reasons: noted("resteered"), tally: with5(resteered)},
		{what: "cutoff: answering datagram", hook: egress, before: talking, in: someUDP.fromTo(canary, client), out: someUDP.fromTo(vip, client), tally: with5(toClient)},
		{what: "cutoff: datagram after it was given to another", before: then(talking, ingress, someUDP), in: someUDP, out: someUDP.fromTo(client, stable),
			tally: with5(toServer)},
	}
}

// settleUndone brings up services whose words can be taken back.
func (s *scene) settleUndone() {
	const toStable, toCanary, toRemote, toShared, toNear, toFar = 1, 2, 3, 4, 5, 6
	index, redirect := uint32(s.index[toBackends]), uint8(bpf.BackendRedirect|bpf.BackendXDP)
	s.backend(toStable, s.at[stable], backendOptions{frontend: 1})
	s.backend(toCanary, s.at[canary], backendOptions{slot: 1, frontend: 1})
	s.backend(toRemote, s.at[remote], backendOptions{slot: 1, flags: bpf.BackendRemote, source: s.host, frontend: 2})
	s.backend(toShared, s.at[shared], backendOptions{slot: 1, frontend: 3})
	s.backend(toNear, s.at[near1], backendOptions{slot: 1, flags: redirect, ifindex: index, frontend: 4})
	s.backend(toFar, s.at[far1], backendOptions{slot: 1, flags: redirect | bpf.BackendRemote, source: s.host, ifindex: index, frontend: 5})
	for _, proto := range []uint8{tcp, udp} {
		s.frontend(1, s.at[vip], proto, 0, toStable, toCanary)
	}
	s.frontend(2, s.at[remoteVIP], tcp, 0, toStable, toRemote)
	s.frontend(3, s.at[realVIP], tcp, bpf.FrontendReal, toStable, toShared)
	s.frontend(4, s.at[nearVIP], tcp, 0, toStable, toNear)
	s.frontend(5, s.at[farVIP], tcp, 0, toStable, toFar)
}

// cutoffs maps the rig's cutoffs into memory.
func (r *rig) cutoffs() *bpf.Cutoffs {
	r.t.Helper()
	c, err := bpf.NewCutoffs(r.Cutoffs, r.Cutting)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return c
}

// An anew sketch is a packet that we made ourselves: IPv4 has a flag for one
// that bears no number.
type anew sketch

func (a anew) bytes(s *scene) []byte {
	frame := sketch(a).bytes(s)
	if isV6(frame) {
		return frame
	}
	return l3Set(6, 0x40)(frame)
}

// A garbled sketch has a wrong checksum.
type garbled sketch

func (g garbled) bytes(s *scene) []byte { return l4SumWrong(sketch(g).bytes(s)) }

// turned goes back to the station that it came from.
func turned(frame []byte) []byte {
	to := bytes.Clone(frame[:6])
	copy(frame, frame[6:12])
	copy(frame[6:], to)
	return frame
}

// untagged is a frame without its outermost VLAN tag.
func untagged(frame []byte) []byte {
	if binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_8021Q {
		return frame
	}
	return slices.Delete(frame, 12, 16)
}

// arrived puts the stations of a link into a frame that comes in from it, and
// left into one that leaves by it.
func arrived(side byte) oddity {
	return func(frame []byte) []byte {
		copy(frame, station(side, 0))
		copy(frame[6:], station(side, neighbourOn(side)))
		return frame
	}
}

func left(side byte) oddity { return func(frame []byte) []byte { return turned(arrived(side)(frame)) } }

func neighbourOn(side byte) byte {
	if side == toClients {
		return 1
	}
	return 2
}

// A wiretap sees the TCP segments on an interface, both ways.
type wiretap struct {
	t  *testing.T
	fd int
}

func newWiretap(t *testing.T, ifindex int) *wiretap {
	t.Helper()
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("open a packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		t.Fatalf("listen on the link: %v", err)
	}
	return &wiretap{t, fd}
}

// heard returns what has passed, and waits for the first segment if one must
// come.
func (w *wiretap) heard(must bool) [][]byte {
	w.t.Helper()
	var frames [][]byte
	for end := time.Now().Add(2 * time.Second); ; {
		buf := make([]byte, 1<<16)
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		switch {
		case err == nil:
			if isTCP(buf[:n]) {
				frames = append(frames, buf[:n])
			}
		case !errors.Is(err, unix.EAGAIN):
			w.t.Fatalf("read from the link: %v", err)
		case !must || len(frames) > 0 || time.Now().After(end):
			return frames
		default:
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 100)
			if err != nil && !errors.Is(err, unix.EINTR) {
				w.t.Fatalf("wait for the link: %v", err)
			}
		}
	}
}

// isTCP tells TCP apart from what the kernel says by itself on a link.
func isTCP(frame []byte) bool {
	for len(frame) > 18 && (binary.BigEndian.Uint16(frame[12:]) == 0x8100 || binary.BigEndian.Uint16(frame[12:]) == 0x88a8) {
		frame = frame[4:]
	}
	switch {
	case len(frame) >= 34 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP:
		return frame[23] == unix.IPPROTO_TCP
	case len(frame) >= 54 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6:
		return frame[20] == unix.IPPROTO_TCP
	}
	return false
}
