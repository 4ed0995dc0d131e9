package bpf_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// Verdicts of a tc program.
const (
	next = 0xffffffff
	drop = 2
)

// A rig is the programs with small maps, and a service by hand.
type rig struct {
	t testing.TB
	*objects
}

// newRig returns a rig as new, with constants and sizes that differ from the
// programs' own.
func newRig(t testing.TB, set map[string]any) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	return &rig{t, borrow(t, set)}
}

// xdp is the program on XDP, with the rig's maps.
func (r *rig) xdp() *ebpf.Program { return r.xdpProgram("siskin_xdp") }

func (r *rig) xdpProgram(name string) *ebpf.Program {
	r.t.Helper()
	p, err := r.onXDP(name)
	if err != nil {
		r.t.Fatal(explained(err))
	}
	return p
}

func (r *rig) put(m *ebpf.Map, key, value any) {
	r.t.Helper()
	if err := m.Put(key, value); err != nil {
		r.t.Fatalf("put in %v: %v", m, err)
	}
	if m == r.Frontends || m == r.Endpoints {
		r.changed()
	}
}

// changed tells the programs to forget what they remember of frontends and
// endpoints.
func (r *rig) changed() {
	r.t.Helper()
	var n uint64
	if err := r.Changes.Lookup(uint32(0), &n); err != nil {
		r.t.Fatal(err)
	}
	if err := r.Changes.Put(uint32(0), n+1); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) openGate(side bpf.GateSide, key bpf.Tuple) {
	r.t.Helper()
	index, bit := bpf.GateBit(side, key, r.Gate.MaxEntries())
	var word uint64
	if err := r.Gate.Lookup(index, &word); err != nil {
		r.t.Fatal(err)
	}
	r.put(r.Gate, index, word|bit)
}

// frontend makes frontend id, whose version v is served by the single backend
// backends[v].
func (r *rig) frontend(id uint32, at netip.AddrPort, proto uint8, flags uint32, backends ...uint32) {
	r.t.Helper()
	fe := bpf.Frontend{Id: id, Word: 0, Salt: rigSalt, Flags: flags}
	for v, backend := range backends {
		offset := id*16 + uint32(v)
		r.put(r.Maglev, offset, backend)
		fe.Tables[v] = bpf.Table{Offset: offset, Length: 1}
	}
	key := bpf.TupleFrom(at, proto)
	r.put(r.Vips, id, key)
	r.put(r.Frontends, key, fe)
	r.openGate(bpf.GateFrontends, key)
}

type backendOptions struct {
	slot     uint8
	flags    uint8
	ifindex  uint32
	source   netip.Addr
	frontend uint32 // the endpoint's only one; 0: shared
}

func (r *rig) backend(id uint32, at netip.AddrPort, o backendOptions) {
	r.t.Helper()
	b := bpf.Backend{
		Addr: bpf.AddrFrom(at.Addr()), Port: bpf.Port(at.Port()),
		Slot: o.slot, Flags: o.flags, Version: uint32(o.slot), Endpoint: id, Ifindex: o.ifindex,
	}
	if o.source.IsValid() {
		b.Source = bpf.AddrFrom(o.source)
	}
	r.put(r.Backends, id, b)
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		key := bpf.TupleFrom(at, proto)
		r.put(r.Endpoints, key, bpf.Endpoint{Id: id, Frontend: o.frontend, Source: b.Source})
		r.openGate(bpf.GateEndpoints, key)
	}
}

func (r *rig) weight(share uint64) { r.t.Helper(); r.put(r.Words, uint32(0), share) }

func (r *rig) run(p *ebpf.Program, in []byte) (uint32, []byte) {
	r.t.Helper()
	// The kernel's test run wants the rest of the buffer for itself.
	verdict, out, err := p.Test(in)
	if err != nil {
		r.t.Fatalf("run: %v", err)
	}
	return verdict, out
}

func (r *rig) expect(p *ebpf.Program, what string, in, want []byte) {
	r.t.Helper()
	verdict, out := r.run(p, in)
	if verdict != next {
		r.t.Fatalf("%s: verdict %d, want next", what, int32(verdict))
	}
	if !bytes.Equal(out, want) {
		r.t.Fatalf("%s:\n in   %s\n got  %s\n want %s", what, hex.EncodeToString(in),
			hex.EncodeToString(out), hex.EncodeToString(want))
	}
}

func (r *rig) in(what string, in, want packet) {
	r.t.Helper()
	r.expect(r.SiskinIngress, what, in.frame(), want.frame())
}

func (r *rig) out(what string, in, want packet) {
	r.t.Helper()
	r.expect(r.SiskinEgress, what, in.frame(), want.frame())
}

func (r *rig) dropped(what string, in packet) {
	r.t.Helper()
	if verdict, _ := r.run(r.SiskinIngress, in.frame()); verdict != drop {
		r.t.Fatalf("%s: verdict %d, want drop", what, int32(verdict))
	}
}

func (r *rig) tally(backend uint32) (sum bpf.Tally) {
	r.t.Helper()
	var all []bpf.Tally
	if err := r.Counters.Lookup(backend, &all); err != nil {
		r.t.Fatal(err)
	}
	for _, c := range all {
		sum.Opened += c.Opened
		sum.Closed += c.Closed
		sum.Forgotten += c.Forgotten
		sum.Established += c.Established
		sum.Refused += c.Refused
		sum.Reset += c.Reset
		sum.Timeout += c.Timeout
		sum.Unreachable += c.Unreachable
		sum.Tls += c.Tls
		for d := range 2 {
			sum.Packets[d] += c.Packets[d]
			sum.Bytes[d] += c.Bytes[d]
			sum.Retransmits[d] += c.Retransmits[d]
		}
	}
	return sum
}

func (r *rig) reason(kind bpf.ReasonKind, name string) (n uint64) {
	r.t.Helper()
	for _, info := range bpf.Reasons() {
		if info.Kind != kind || info.Name != name {
			continue
		}
		var all []uint64
		if err := r.Reasons.Lookup(uint32(info.Index), &all); err != nil {
			r.t.Fatal(err)
		}
		for _, v := range all {
			n += v
		}
		return n
	}
	r.t.Fatalf("no reason %q", name)
	return 0
}

// family is the addresses of one case; every test runs for both.
type family struct {
	name                          string
	client, vip, stable, canary   netip.AddrPort
	host                          netip.Addr
	elsewhere, secondVIP, another netip.AddrPort
}

func families() []family {
	ap := netip.MustParseAddrPort
	return []family{
		{
			name: "IPv4", client: ap("198.18.1.7:40000"), vip: ap("198.18.0.10:80"),
			stable: ap("198.18.2.2:8080"), canary: ap("198.18.2.3:8081"),
			host: netip.MustParseAddr("198.18.2.1"), elsewhere: ap("198.18.9.9:80"),
			secondVIP: ap("198.18.0.11:80"), another: ap("198.18.1.8:40000"),
		},
		{
			name: "IPv6", client: ap("[2001:db8:1::7]:40000"), vip: ap("[2001:db8::10]:80"),
			stable: ap("[2001:db8:2::2]:8080"), canary: ap("[2001:db8:2::3]:8081"),
			host: netip.MustParseAddr("2001:db8:2::1"), elsewhere: ap("[2001:db8:9::9]:80"),
			secondVIP: ap("[2001:db8::11]:80"), another: ap("[2001:db8:1::8]:40000"),
		},
	}
}

// each runs a test for IPv4 and IPv6 on a rig with one service: frontend 1,
// stable backend 1, canary backend 2, and everything to stable.
func each(t *testing.T, set map[string]any, test func(t *testing.T, r *rig, f family)) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			r := newRig(t, set)
			r.backend(1, f.stable, backendOptions{frontend: 1})
			r.backend(2, f.canary, backendOptions{slot: 1, frontend: 1})
			for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				r.frontend(1, f.vip, proto, 0, 1, 2)
			}
			test(t, r, f)
		})
	}
}

// slot returns the place of a flow, and its index in the flows map.
func (r *rig) slot(key bpf.FlowKey) (uint32, bpf.Slot) {
	r.t.Helper()
	var index uint32
	var slot bpf.Slot
	for all := r.Flows.Iterate(); all.Next(&index, &slot); {
		if slot.Key == key && slot.Use == slotListed {
			return index, slot
		}
	}
	r.t.Fatalf("%v has no flow", key)
	return 0, slot
}

// rigSalt is the salt of all frontends.
const rigSalt = 7

// slotListed is SLOT_LISTED of bpf/types.h.
const slotListed = 2

func (r *rig) flow(key bpf.FlowKey) bpf.Flow {
	r.t.Helper()
	_, slot := r.slot(key)
	return slot.Flow
}
