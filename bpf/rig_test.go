package bpf_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
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
	set map[string]any // constants that differ from the programs' own
}

// objects are the programs and maps that the tests use: loading the programs
// for interfaces without a link layer too would double the time.
type objects struct {
	SiskinIngress *ebpf.Program `ebpf:"siskin_ingress"`
	SiskinEgress  *ebpf.Program `ebpf:"siskin_egress"`
	SiskinStart   *ebpf.Program `ebpf:"siskin_start"`
	SiskinEmpty   *ebpf.Program `ebpf:"siskin_empty"`
	SiskinHeard   *ebpf.Program `ebpf:"siskin_heard"`

	Gate      *ebpf.Map `ebpf:"gate"`
	Frontends *ebpf.Map `ebpf:"frontends"`
	Vips      *ebpf.Map `ebpf:"vips"`
	Echoes    *ebpf.Map `ebpf:"echoes"`
	Words     *ebpf.Map `ebpf:"words"`
	Leases    *ebpf.Map `ebpf:"leases"`
	Rooms     *ebpf.Map `ebpf:"rooms"`
	Events    *ebpf.Map `ebpf:"events"`
	Releases  *ebpf.Map `ebpf:"releases"`
	Cells     *ebpf.Map `ebpf:"cells"`
	Outcomes  *ebpf.Map `ebpf:"outcomes"`
	Successes *ebpf.Map `ebpf:"successes"`
	Breakers  *ebpf.Map `ebpf:"breakers"`
	Maglev    *ebpf.Map `ebpf:"maglev"`
	Backends  *ebpf.Map `ebpf:"backends"`
	Endpoints *ebpf.Map `ebpf:"endpoints"`
	Flows     *ebpf.Map `ebpf:"flows"`
	Aliases   *ebpf.Map `ebpf:"aliases"`
	Aging     *ebpf.Map `ebpf:"aging"`
	Counters  *ebpf.Map `ebpf:"counters"`
	Latencies *ebpf.Map `ebpf:"latencies"`
	Reasons   *ebpf.Map `ebpf:"reasons"`
	Tries     *ebpf.Map `ebpf:"tries"`
	Cutoffs   *ebpf.Map `ebpf:"cutoffs"`
	Cutting   *ebpf.Map `ebpf:"cutting"`

	// For the program on XDP, which shares them all.
	Changes   *ebpf.Map `ebpf:"changes"`
	Vacant    *ebpf.Map `ebpf:"vacant"`
	Shortages *ebpf.Map `ebpf:"shortages"`
	Talks     *ebpf.Map `ebpf:"talks"`
	Pieces    *ebpf.Map `ebpf:"pieces"`
	Requests  *ebpf.Map `ebpf:"requests"`
	FlowIndex *ebpf.Map `ebpf:"flow_index"`
	Fragments *ebpf.Map `ebpf:"fragments"`
	Hops      *ebpf.Map `ebpf:"hops"`
	Drafts    *ebpf.Map `ebpf:"drafts"`
	ICMPWorks *ebpf.Map `ebpf:"icmp_works"`
}

func (o *objects) close() {
	for _, p := range []*ebpf.Program{o.SiskinIngress, o.SiskinEgress, o.SiskinStart, o.SiskinEmpty, o.SiskinHeard} {
		p.Close()
	}
	for _, m := range o.maps() {
		m.Close()
	}
}

// maps returns the maps by their names.
func (o *objects) maps() map[string]*ebpf.Map {
	all := map[string]*ebpf.Map{}
	v := reflect.ValueOf(o).Elem()
	for i := range v.NumField() {
		if m, ok := v.Field(i).Interface().(*ebpf.Map); ok {
			all[v.Type().Field(i).Tag.Get("ebpf")] = m
		}
	}
	return all
}

func newRig(t testing.TB, set map[string]any) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	size := func(n uint32, names ...string) {
		for _, name := range names {
			spec.Maps[name].MaxEntries = n
		}
	}
	sizeFlows := func(n uint32) {
		size(n, "talks")
		size(n, "flows", "aliases", "vacant")
		size((n+2)/3, "flow_index")
	}
	sizeFlows(64)
	size(32, "frontends", "vips", "backends", "endpoints", "counters", "hops", "latencies", "services", "requests")
	size(64, "shortages")
	size(4096, "maglev")
	for name, value := range set {
		if name == "frontends" {
			size(value.(uint32), "frontends", "vips")
			continue
		}
		if name == "outcomes" || name == "rooms" {
			size(value.(uint32), name)
			continue
		}
		if name == "flows" {
			sizeFlows(value.(uint32))
			continue
		}
		if err := spec.Variables[name].Set(value); err != nil {
			t.Fatalf("set %s: %v", name, err)
		}
	}
	var loaded objects
	if err := spec.LoadAndAssign(&loaded, nil); err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			t.Fatalf("%+v", ve)
		}
		t.Fatal(err)
	}
	t.Cleanup(loaded.close)
	return &rig{t, &loaded, set}
}

// xdp loads the program on XDP with the rig's maps.
func (r *rig) xdp() *ebpf.Program { return r.xdpProgram("siskin_xdp") }

func (r *rig) xdpProgram(name string) *ebpf.Program {
	r.t.Helper()
	spec, err := bpf.XDPSpec()
	if err != nil {
		r.t.Fatal(err)
	}
	shared := map[string]*ebpf.Map{}
	for name, m := range r.maps() {
		if s := spec.Maps[name]; s != nil {
			s.MaxEntries = m.MaxEntries()
			shared[name] = m
		}
	}
	for name, value := range r.set {
		if v := spec.Variables[name]; v != nil {
			if err := v.Set(value); err != nil {
				r.t.Fatalf("set %s: %v", name, err)
			}
		}
	}
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			r.t.Fatalf("%+v", ve)
		}
		r.t.Fatal(err)
	}
	r.t.Cleanup(loaded.Close)
	return loaded.Programs[name]
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
