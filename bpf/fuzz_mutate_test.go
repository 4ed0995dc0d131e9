package bpf_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// A seed is a packet that gets deep into the programs.
type seed struct {
	hook
	frame []byte
}

// seeds are requests, replies, errors and fragments, of the connections that
// are open and of new ones, with and without tags.
func (a *arena) seeds(clients int) []seed {
	var all []seed
	for _, s := range a.scenes {
		if a.routed {
			toStranger := sketch{near1, client, packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}}
			all = append(all, seed{ingress, toStranger.bytes(a.nextDoor(s))})
		}
		for i := range clients {
			c := a.as(s, i)
			for _, k := range seedSketches(a.routed) {
				frame := k.shape.bytes(c)
				all = append(all, seed{k.hook, frame}, seed{k.hook, tagged(unix.ETH_P_8021Q)(slices.Clone(frame))})
			}
		}
	}
	return all
}

type seedSketch struct {
	hook
	shape
}

func seedSketches(routed bool) []seedSketch {
	var all []seedSketch
	add := func(h hook, shapes ...shape) {
		for _, s := range shapes {
			all = append(all, seedSketch{h, s})
		}
	}
	reply := packet{flags: ack, seq: serverISN + 1, ack: isn + 1, payload: hello}
	body := make([]byte, 64)
	piece := func(from, to role, offset uint16) sketch {
		return sketch{from, to, packet{proto: udp, payload: body, whole: 8 + 2*64, ident: 7, fragment: offset}}
	}
	pairs := [][2]role{{vip, stable}, {remoteVIP, remote}, {firstVIP, shared}}
	if routed {
		pairs = append(pairs, [2]role{nearVIP, near1}, [2]role{farVIP, far1})
		for _, k := range []sketch{{near1, client, reply}, {far1, onHost, reply}, {far1, onHost, packet{proto: udp, payload: hello}}} {
			add(ingress, k)
		}
		add(ingress, complaint{middle, client, 0, someTCP.fromTo(client, near1), 64}, complaint{middle, host, 0, someTCP.fromTo(onHost, far1), 8})
	}
	asked, told := packet{flags: ack, seq: isn + 1, ack: serverISN + 1, payload: []byte(httpGET())}, reply
	told.payload = []byte(httpOK("fine"))
	for _, pair := range pairs {
		front, back := pair[0], pair[1]
		add(ingress, sketch{client, front, asked})
		add(egress, sketch{back, client, told})
		add(ingress, aSYN.fromTo(client, front), aSYN.fromTo(another, front), someTCP.fromTo(client, front), someUDP.fromTo(client, front))
		add(egress, sketch{back, client, reply}, sketch{back, client, packet{proto: udp, payload: hello}})
		for _, k := range []sketch{someTCP, someUDP} {
			for _, quoted := range []int{8, 64} {
				add(egress, complaint{middle, client, 0, k.fromTo(client, back), quoted}, complaint{back, client, 1, k.fromTo(client, back), quoted})
				add(ingress, complaint{middle, front, 0, k.fromTo(front, client), quoted})
			}
		}
		add(ingress, piece(client, front, 1), piece(client, front, 72))
		add(egress, piece(back, client, 1), piece(back, client, 72))
	}
	add(ingress, aSYN.fromTo(client, realVIP), anACK.fromTo(elsewhere, realVIP), anACK.fromTo(elsewhere, vip), aSYN.fromTo(client, secondVIP),
		aSYN.fromTo(client, elsewhere), sketch{remote, onHost, reply}, sketch{remote, onHost, packet{proto: udp, payload: hello}},
		piece(remote, onHost, 1), piece(remote, onHost, 72),
		complaint{middle, host, 0, someTCP.fromTo(onHost, remote), 64}, complaint{remote, host, 2, someUDP.fromTo(onHost, remote), 8})
	add(egress, someTCP.fromTo(client, remote), someUDP.fromTo(client, remote), piece(client, remote, 1), piece(client, remote, 72),
		complaint{middle, remote, 0, sketch{remote, client, reply}, 64})
	return all
}

// rules are what the seeds must be changed by.
func rules() []string {
	return []string{
		"request", "reply", "reply to the host", "request from the host", "dropped",
		"fragment of a request", "fragment of a reply", "fragment of a reply to the host", "fragment of a request from the host",
		"error to a client", "error to a backend", "error from beyond a backend", "error from a client",
		"request past the stack", "reply past the stack", "error to a client past the stack", "error to a backend past the stack",
		"sent to a stranger",
	}
}

// mutate makes something else of a frame, with up to four changes.
func (a *arena) mutate(rng *rand.Rand, frame []byte) []byte {
	frame = slices.Clone(frame)
	for range min(rng.IntN(5), rng.IntN(5)) {
		frame = a.mutateOnce(rng, frame)
		if len(frame) < 64 {
			// What is cut short stays interesting only if it is not cut again.
			break
		}
	}
	if rng.IntN(3) != 0 {
		mend(frame)
	}
	return frame
}

func (a *arena) mutateOnce(rng *rand.Rand, frame []byte) []byte {
	at := 12 + rng.IntN(min(len(frame), 120)-12)
	switch rng.IntN(11) {
	case 0:
		frame[at] ^= 1 << rng.IntN(8)
	case 1:
		frame[at] = byte(rng.Uint32())
	case 2: // a length, or anything else of 16 bits
		odd := []uint16{0, 1, 7, 8, 19, 20, 21, 40, uint16(len(frame)), uint16(len(frame) - 14), 0x7fff, 0x8000, 0xffff}
		put16(frame, at, odd[rng.IntN(len(odd))])
	case 3:
		put16(frame, at, binary.BigEndian.Uint16(frame[at-2:])+uint16(rng.IntN(3))-1)
	case 4:
		return frame[:14+rng.IntN(len(frame)-13)]
	case 5:
		return append(frame, make([]byte, rng.IntN(40))...)
	case 6:
		return tagged([]uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD}[rng.IntN(2)])(frame)
	case 7: // an address or port of somebody else
		a.impersonate(rng, frame)
	case 8:
		if len(frame) > 54 && isV6(frame) {
			kinds := []uint8{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH}
			return extended(kinds[rng.IntN(len(kinds))])(frame)
		}
	case 9: // the flags and offset of IPv4 fragments
		put16(frame, 14+6, uint16(rng.IntN(0x10000))&[]uint16{0x2000, 0x1fff, 3, 0xffff}[rng.IntN(4)])
	case 10: // proto, or next header
		frame[[]int{14 + 9, 14 + 6}[rng.IntN(2)]%len(frame)] = []byte{tcp, udp, 1, 58, 44, 0, 132}[rng.IntN(7)]
	}
	return frame
}

func put16(frame []byte, at int, v uint16) {
	if at+2 <= len(frame) {
		binary.BigEndian.PutUint16(frame[at:], v)
	}
}

// impersonate writes somebody else's address or port into a packet, or into the
// one that it quotes.
func (a *arena) impersonate(rng *rand.Rand, frame []byte) {
	d := dissect(frame)
	if d == nil {
		return
	}
	if d.inner != nil && rng.IntN(2) == 0 {
		d = d.inner
	}
	s := a.as(a.scenes[rng.IntN(len(a.scenes))], rng.IntN(fuzzOpen))
	who := role(1 + rng.IntN(int(middle)))
	at, ok := s.at[who]
	if !ok {
		return
	}
	off, size := d.l3+12, 4
	if d.v6 {
		off, size = d.l3+8, 16
	}
	other := rng.IntN(2)
	if addr := at.Addr().AsSlice(); len(addr) == size && rng.IntN(3) != 0 {
		copy(frame[off+other*size:], addr)
	}
	if !d.later && !d.complaint && rng.IntN(3) != 0 {
		binary.BigEndian.PutUint16(frame[d.l4+2*other:], at.Port())
	}
}

// mend makes the checksums right of a packet that can be dissected.
func mend(frame []byte) {
	d := dissect(frame)
	if d == nil {
		return
	}
	if d.inner != nil {
		d.inner.mend(frame[:d.end])
	}
	d.mend(frame)
}

func (d *dissection) mend(frame []byte) {
	if !d.v6 {
		put16(frame, d.l3+10, 0)
		put16(frame, d.l3+10, gopacket.FoldChecksum(gopacket.ComputeChecksum(frame[d.l3:d.l4], 0)))
	}
	if d.sum == 0 {
		return
	}
	end := d.end
	length := end - d.l4
	if d.proto == layers.IPProtocolUDP {
		length = int(binary.BigEndian.Uint16(frame[d.l4+4:]))
		end = min(end, d.l4+length)
	}
	var pseudo uint32
	if d.proto != layers.IPProtocolICMPv4 {
		pseudo = gopacket.ComputeChecksum(d.pseudo(frame), uint32(length))
	}
	put16(frame, d.sum, 0)
	sum := gopacket.FoldChecksum(gopacket.ComputeChecksum(frame[d.l4:end], pseudo))
	if d.proto == layers.IPProtocolUDP && sum == 0 {
		sum = 0xffff
	}
	put16(frame, d.sum, sum)
}
