package bpf_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A judge knows the services and says whether what came of a frame may be.
type judge struct {
	frontends map[service]front
	endpoints map[service]rear
	sources   map[netip.Addr]bool // the host's own towards backends
	spoken    map[netip.Addr]bool // clients that were steered
	min, max  uint16              // source ports that are ours
	hops      map[[2]string]bool  // link-layer addresses, to and from
	links     []netip.Prefix      // of clients; link-layer addresses are known
	routers   map[netip.Addr]bool // of these only
	rules     map[string]int      // how often each allowed a change
}

type service struct {
	at    netip.AddrPort
	proto layers.IPProtocol
}

// A front is a frontend: where its packets may go.
type front struct {
	backends []netip.AddrPort
	moves    bool       // the source port may be changed
	virtual  bool       // nobody else answers there
	sends    bool       // past the stack
	source   netip.Addr // seen by the backends then, if it is another than the client's
}

// A rear is a backend: whom its packets may seem to come from.
type rear struct {
	frontends []netip.AddrPort
	moves     bool
	sends     bool
	source    netip.Addr
}

// A fate is what became of a frame.
type fate uint8

const (
	fatePassed fate = iota
	fateDropped
	fateSent // past the stack
)

// A trial is one run of a program.
type trial struct {
	hook
	xdp     bool
	in, out []byte
	fate
}

// read is the fields that may change, as they lie in a frame.
func (d *dissection) read(frame []byte) (src, dst netip.AddrPort) {
	var a, b netip.Addr
	if d.v6 {
		a, _ = netip.AddrFromSlice(frame[d.l3+8 : d.l3+24])
		b, _ = netip.AddrFromSlice(frame[d.l3+24 : d.l3+40])
	} else {
		a, _ = netip.AddrFromSlice(frame[d.l3+12 : d.l3+16])
		b, _ = netip.AddrFromSlice(frame[d.l3+16 : d.l3+20])
	}
	if d.later || d.complaint {
		return netip.AddrPortFrom(a, 0), netip.AddrPortFrom(b, 0)
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(frame[d.l4:])),
		netip.AddrPortFrom(b, binary.BigEndian.Uint16(frame[d.l4+2:]))
}

// copyFields copies addresses, ports and checksums of a packet.
func (d *dissection) copyFields(to, from []byte) {
	if d.v6 {
		copy(to[d.l3+8:d.l3+40], from[d.l3+8:])
	} else {
		copy(to[d.l3+10:d.l3+20], from[d.l3+10:])
	}
	if !d.later && !d.complaint {
		copy(to[d.l4:d.l4+4], from[d.l4:])
	}
	if d.sum != 0 {
		copy(to[d.sum:d.sum+2], from[d.sum:])
	}
	if d.inner != nil {
		d.inner.copyFields(to, from)
	}
}

// verdict says what is wrong with what a program made of a frame; "" is nothing.
func (j *judge) verdict(t trial) string {
	if len(t.out) != len(t.in) {
		return fmt.Sprintf("the length changed from %d to %d", len(t.in), len(t.out))
	}
	d := dissect(t.in)
	if d != nil && t.hook == ingress && (!t.xdp && d.otherHost || t.in[0]&1 != 0) {
		d = nil // it is for another host, or for a group
	}
	whole := d != nil && !d.later && !d.complaint
	switch {
	case t.fate == fateDropped:
		if !whole || t.hook != ingress || j.frontends[service{d.dst, d.proto}].backends == nil {
			return "a packet that is not ours was dropped"
		}
		j.rules["dropped"]++
		return ""
	case t.fate == fateSent && d == nil:
		return "a packet that is not ours was sent past the stack"
	case t.fate == fateSent:
		return j.sent(t, d)
	case bytes.Equal(t.in, t.out):
		if whole && t.hook == ingress && j.frontends[service{d.dst, d.proto}].virtual {
			return "a packet to a virtual address was neither steered nor dropped"
		}
		return ""
	case d == nil:
		return "what cannot be steered was changed"
	}
	return j.changed(t, d, j.allowed(t.hook, d, t.out), slices.Clone(t.in))
}

// sent judges what was sent past the stack: only what the stack would have had
// nothing to say about, with the next hop's address and a TTL less by one.
func (j *judge) sent(t trial, d *dissection) string {
	ttl := d.l3 + 8
	if d.v6 {
		ttl = d.l3 + 7
	}
	if d.l3 != atL3 || d.first || d.later || t.in[ttl] <= 1 {
		return "the stack was to have this packet"
	}
	hop := [2]string{net.HardwareAddr(t.out[:6]).String(), net.HardwareAddr(t.out[6:12]).String()}
	_, dst := d.read(t.out)
	switch stranger := j.stranger(dst.Addr()); {
	case stranger && t.xdp:
		return "XDP sent to who has no link-layer address yet"
	case stranger:
		j.rules["sent to a stranger"]++ // the kernel asks, and writes it then
	case !j.hops[hop]:
		return fmt.Sprintf("it goes from %s to %s", hop[1], hop[0])
	}
	rest := slices.Clone(t.in)
	copy(rest, t.out[:12])
	rest[ttl]--
	return j.changed(t, d, j.allowedPast(d, t.out), rest)
}

// stranger tells whether an address is on a link of ours, and no neighbour is
// known by it.
func (j *judge) stranger(at netip.Addr) bool {
	return !j.routers[at] && slices.ContainsFunc(j.links, func(p netip.Prefix) bool { return p.Contains(at) })
}

// changed judges a change by a rule; rest is the frame with what else may
// differ.
func (j *judge) changed(t trial, d *dissection, rule string, rest []byte) string {
	if rule == "" {
		return "no rule allows this change"
	}
	j.rules[rule]++
	j.spoken[d.src.Addr()] = true
	d.copyFields(rest, t.out)
	if !bytes.Equal(rest, t.out) {
		return "something else than addresses, ports and checksums was changed (rule " + rule + ")"
	}
	if wrong := d.sums(t.in, t.out); wrong != "" {
		return wrong + " (rule " + rule + ")"
	}
	return verified(t.in, t.out)
}

// sums compares each checksum with what it covers, before and after: the
// difference, which is zero where it is right, must be the same.
func (d *dissection) sums(in, out []byte) string {
	if !d.v6 && residue(nil, in[d.l3:d.l4]) != residue(nil, out[d.l3:d.l4]) {
		return "the IPv4 header's checksum is off"
	}
	if d.sum == 0 {
		return ""
	}
	before, after := binary.BigEndian.Uint16(in[d.sum:]), binary.BigEndian.Uint16(out[d.sum:])
	if d.proto == layers.IPProtocolUDP && (before == 0) != (after == 0) {
		return "a UDP checksum was invented, or lost"
	}
	if d.proto == layers.IPProtocolUDP && before == 0 {
		return ""
	}
	if d.proto != layers.IPProtocolUDP && before != 0xffff && after == 0xffff {
		return "a checksum of zero became ones"
	}
	if residue(d.pseudo(in), in[d.l4:d.end]) != residue(d.pseudo(out), out[d.l4:d.end]) {
		return fmt.Sprintf("the checksum at byte %d is off", d.sum)
	}
	if d.inner != nil {
		if wrong := d.inner.sums(in[:d.end], out[:d.end]); wrong != "" {
			return "in the quoted packet: " + wrong
		}
	}
	return ""
}

// pseudo is the pseudo-header as a frame has it.
func (d *dissection) pseudo(frame []byte) []byte {
	if d.proto == layers.IPProtocolICMPv4 {
		return nil
	}
	addrs := frame[d.l3+12 : d.l3+20]
	if d.v6 {
		addrs = frame[d.l3+8 : d.l3+40]
	}
	// The length is the same before and after, whatever it is.
	return append(slices.Clone(addrs), 0, byte(d.proto))
}

// residue is what the words of a checksum's area add up to, in ones'
// complement.
func residue(pseudo, area []byte) uint16 {
	sum := gopacket.FoldChecksum(gopacket.ComputeChecksum(area, gopacket.ComputeChecksum(pseudo, 0)))
	if sum == 0xffff {
		return 0
	}
	return sum
}

// verified lets gopacket verify all checksums of a packet: where it found
// nothing before, it must find nothing after.
func verified(in, out []byte) string {
	if mismatches(in) == 0 && mismatches(out) != 0 {
		return "gopacket finds a wrong checksum"
	}
	return ""
}

func mismatches(frame []byte) int {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	err, wrong := p.VerifyChecksums()
	if err != nil {
		return -1 // it does not know the rest of the packet
	}
	return len(wrong)
}
