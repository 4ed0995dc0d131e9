package bpf_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// cost is one line of the table of packets.
type cost struct {
	Name     string  `json:"name"`
	Hook     string  `json:"hook"`
	Family   string  `json:"family"`
	Flows    int     `json:"flows"`
	Services int     `json:"services"`
	Net      float64 `json:"net_ns"` // median of the rounds, over an empty program
	Min      float64 `json:"min_ns"`
	Max      float64 `json:"max_ns"`
}

// A load is a kind of packet: which program takes it, in which crowd.
type load struct {
	name            string
	flows, services int
	egress          bool                                 // of tc; at XDP answers come in like the rest
	read            bool                                 // requests are looked for in the flows
	frame           func(w *crowd, i int) []byte         // the i-th packet
	prepare         func(w *crowd, i int) (frame []byte) // what comes before each, unmeasured
}

// rounds are the parts of a measurement, of which the median counts.
const rounds = 5

// loads is the table. The capacity of the flow table is the default one, or
// what the flows need.
func loads() []load {
	var out []load
	add := func(l load) { out = append(out, l) }
	add(load{name: "foreign", flows: 10_000, services: 1, frame: foreign})
	add(load{name: "foreign on our port", flows: 10_000, services: 1, frame: foreignPort})
	for _, flows := range []int{10, 10_000, 1_000_000} {
		add(load{name: "hot", flows: flows, services: 1, frame: hot})
	}
	add(load{name: "hot, 1400 bytes", flows: 10, services: 1, frame: hotLarge})
	add(load{name: "request", flows: 10, services: 1, frame: requestOf, prepare: answerOf})
	add(load{name: "reply", flows: 10, services: 1, frame: replyOf, egress: true})
	add(load{name: "response", flows: 10, services: 1, frame: answerOf, prepare: requestOf, egress: true})
	for _, flows := range []int{10_000, 100_000, 1_000_000} {
		add(load{name: "scattered", flows: flows, services: 1, frame: scattered})
	}
	for _, services := range []int{1000, 10_000} {
		add(load{name: "scattered", flows: 100_000, services: services, frame: scattered})
	}
	for _, services := range []int{1, 1000, 10_000} {
		add(load{name: "new", flows: 10, services: services, frame: newFlow})
	}
	return append(out, httpLoads()...)
}

// BenchmarkPacket measures what one packet costs: BPF_PROG_TEST_RUN with a
// fresh packet each, the mean of the lowest 99 % (the clock steps, so medians
// jump), minus an empty program measured in turn with it. The metric that
// counts is net-ns; ns/op is the system call. SISKIN_PACKETS names a file for
// the table as JSON.
func BenchmarkPacket(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: loads BPF programs")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var table []cost
	for _, hook := range []string{"tc", "XDP"} {
		for _, f := range families() {
			for _, l := range loads() {
				name := fmt.Sprintf("%s/%s/%s/flows=%d/services=%d", hook, f.name, l.name, l.flows, l.services)
				b.Run(name, func(b *testing.B) {
					if b.N > 1 { // the first call only asks how long one takes
						table = append(table, l.measure(b, hook, f))
					}
				})
			}
		}
	}
	if path := os.Getenv("SISKIN_PACKETS"); path != "" {
		text, err := json.MarshalIndent(table, "", "  ")
		if err == nil {
			err = os.WriteFile(path, append(text, '\n'), 0o644)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func (l load) measure(b *testing.B, hook string, f family) cost {
	w := newCrowd(b, f, l)
	program, floor := w.SiskinIngress, w.SiskinEmpty
	if hook == "XDP" {
		program, floor = w.xdp(), w.xdpProgram("siskin_xdp_empty")
	}
	before := program
	if l.egress && hook == "tc" {
		program = w.SiskinEgress
	} else if hook == "tc" {
		before = w.SiskinEgress
	}
	// Made before, so that nothing but the two programs runs in between.
	frames, first := make([][]byte, b.N), make([][]byte, b.N)
	for i := range frames {
		frames[i] = l.frame(w, i)
		if l.prepare != nil {
			first[i] = l.prepare(w, i)
		}
	}
	took, idle := make([][]time.Duration, rounds), make([][]time.Duration, rounds)
	b.ResetTimer()
	for i, frame := range frames {
		if first[i] != nil {
			once(b, before, first[i])
		}
		round := i * rounds / len(frames)
		idle[round] = append(idle[round], once(b, floor, frame))
		took[round] = append(took[round], once(b, program, frame))
	}
	b.StopTimer()
	var net []float64
	for i := range rounds {
		if len(took[i]) > 0 {
			net = append(net, trimmed(took[i])-trimmed(idle[i]))
		}
	}
	slices.Sort(net)
	c := cost{l.name, hook, f.name, l.flows, l.services, net[len(net)/2], net[0], net[len(net)-1]}
	b.ReportMetric(c.Net, "net-ns")
	b.ReportMetric(c.Min, "min-ns")
	b.ReportMetric(c.Max, "max-ns")
	return c
}

// A crowd is a rig with services and established flows, which are written into
// the tables: opening a million would take a minute.
type crowd struct {
	*rig
	family
	flows, services int
}

func newCrowd(b *testing.B, f family, l load) *crowd {
	flows, services := l.flows, l.services
	capacity := uint32(max(262_144, flows+b.N+1))
	set := map[string]any{"flows": capacity, "frontends": uint32(services + 2)}
	w := &crowd{newRig(b, set), f, flows, services}
	w.backend(1, f.stable, backendOptions{frontend: 1})
	for s := range services {
		w.frontend(uint32(s+1), w.vipOf(s), unix.IPPROTO_TCP, 0)
		key := bpf.TupleFrom(w.vipOf(s), unix.IPPROTO_TCP)
		fe := bpf.Frontend{Id: uint32(s + 1), Salt: 7}
		fe.Tables[0] = bpf.Table{Offset: 0, Length: 1}
		w.put(w.Frontends, key, fe)
	}
	w.put(w.Maglev, uint32(0), uint32(1))
	w.fill(l.read)
	return w
}

// fill writes the flows: slot i has the flow of client i.
func (w *crowd) fill(read bool) {
	w.t.Helper()
	slots, keys := make([]bpf.Slot, w.flows), make([]uint32, w.flows)
	index := map[uint32]*bpf.Bucket{}
	for i := range slots {
		keys[i] = uint32(i)
		s := &slots[i]
		s.Key = flowKey(w.clientOf(i), w.vipOf(i%w.services), unix.IPPROTO_TCP)
		s.Use = slotListed
		s.Flow.Flags = bpf.FlowAnswered | bpf.FlowEstablished
		if read {
			s.Flow.Flags |= bpf.FlowRead
			s.Flow.OpenedNs = 1 // what is remembered of the slot is not its own
		}
		s.Flow.Backend, s.Flow.Port = 1, s.Key.Port
		s.Flow.ClientNext, s.Flow.ServerNext = isn+1, serverISN+1
		bucket, tag := placeOf(s.Key, w.FlowIndex.MaxEntries())
		if index[bucket] == nil {
			index[bucket] = new(bpf.Bucket)
		}
		cell := slices.Index(index[bucket].Cell[:], 0)
		if cell < 0 {
			w.t.Fatalf("bucket %d is full", bucket)
		}
		index[bucket].Cell[cell] = tag | uint32(i+1)
	}
	if _, err := w.Flows.BatchUpdate(keys, slots, nil); err != nil {
		w.t.Fatal(err)
	}
	for bucket, cells := range index {
		w.put(w.FlowIndex, bucket, *cells)
	}
	w.put(w.Aging, uint32(0), bpf.Clockwork{Taken: uint64(w.flows)})
}

// placeOf does as place_of in table.h, with the built-in seed.
func placeOf(key bpf.FlowKey, buckets uint32) (bucket, tag uint32) {
	const seed, f1, f2 = 0x2b992ddfa23249d6, 0xd6e8feb86659fd93, 0x9e3779b97f4a7c15
	raw := make([]byte, 40)
	if _, err := binary.Encode(raw, binary.NativeEndian, key); err != nil {
		panic(err)
	}
	var w [5]uint64
	for i := range w {
		w[i] = binary.NativeEndian.Uint64(raw[8*i:])
	}
	a, b := (seed^w[0])*f1, (seed^w[1])*f2
	a = (a ^ a>>32 ^ w[2]) * f1
	b = (b ^ b>>29 ^ w[3]) * f2
	h := (a ^ a>>32) + (b ^ b>>29) + w[4]
	h *= f1
	h ^= h >> 32
	h *= f1
	return uint32(h >> 32 * uint64(buckets) >> 32), uint32(h) & 0xff000000
}

// vipOf is the address of a service; the first is the family's own.
func (w *crowd) vipOf(service int) netip.AddrPort {
	if service == 0 {
		return w.vip
	}
	return numbered(w.vip, service)
}

// clientOf is one of four million clients.
func (w *crowd) clientOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(numbered(w.client, 1000+i>>6).Addr(), uint16(20000+i&63))
}

// numbered returns an address that lies n behind another one.
func numbered(at netip.AddrPort, n int) netip.AddrPort {
	if at.Addr().Is4() {
		a := at.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(n))
		return netip.AddrPortFrom(netip.AddrFrom4(a), at.Port())
	}
	a := at.Addr().As16()
	binary.BigEndian.PutUint32(a[10:], uint32(n))
	return netip.AddrPortFrom(netip.AddrFrom16(a), at.Port())
}

// Foreign packets have random tuples.
func foreign(w *crowd, i int) []byte {
	to := netip.AddrPortFrom(numbered(w.elsewhere, i*7919%65536).Addr(), uint16(i*31))
	return packet{src: numbered(w.another, i*104729%65536), dst: to, flags: ack}.frame()
}

func foreignPort(w *crowd, i int) []byte {
	to := netip.AddrPortFrom(numbered(w.elsewhere, i*7919%65536).Addr(), w.vip.Port())
	return packet{src: numbered(w.another, i*104729%65536), dst: to, flags: ack}.frame()
}

func (w *crowd) segment(i int) packet {
	return packet{src: w.clientOf(i), dst: w.vipOf(i % w.services), flags: ack, seq: isn + 1, ack: serverISN + 1}
}

func hot(w *crowd, _ int) []byte { return w.segment(0).frame() }

func hotLarge(w *crowd, _ int) []byte {
	p := w.segment(0)
	p.payload = make([]byte, 1400)
	return p.frame()
}

// scattered meets the flows in an order in which no two neighbours lie in one
// cache line or page.
func scattered(w *crowd, i int) []byte { return w.segment(i * 7919 % w.flows).frame() }

// requestOf is the next request of a connection, and answerOf the server's
// answer to the last one: each is due a timestamp.
func requestOf(w *crowd, i int) []byte {
	p := w.segment(0)
	p.seq, p.ack, p.payload = isn+1+uint32(5*i), serverISN+1+uint32(3*i), []byte("hello")
	return p.frame()
}

func answerOf(w *crowd, i int) []byte {
	return packet{src: w.stable, dst: w.clientOf(0), flags: ack, seq: serverISN + 1 + uint32(3*i), ack: isn + 6 + uint32(5*i),
		payload: []byte("yes")}.frame()
}

func replyOf(w *crowd, _ int) []byte {
	return packet{src: w.stable, dst: w.clientOf(0), flags: ack, seq: serverISN + 1, ack: isn + 1}.frame()
}

func newFlow(w *crowd, i int) []byte {
	return packet{src: w.clientOf(w.flows + i), dst: w.vipOf(i % w.services), flags: syn, seq: isn}.frame()
}

func once(b *testing.B, p *ebpf.Program, frame []byte) time.Duration {
	_, took, err := p.Benchmark(frame, 1, nil)
	if err != nil {
		b.Fatal(err)
	}
	return took
}

// trimmed is the mean of the lowest 99 %, in nanoseconds.
func trimmed(all []time.Duration) float64 {
	slices.Sort(all)
	all = all[:max(1, len(all)*99/100)]
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return float64(sum) / float64(len(all))
}
