package bpf_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// The table of packet cases: what goes in, on which hook, after what, and what
// must come of it: verdict, bytes, and every counter that moved. One table
// serves IPv4 and IPv6, and each hook that the programs have.
type packetCase struct {
	what     string
	only     string // "IPv4" or "IPv6", where a case has no twin
	on       string // the only column in which it has a meaning
	world    world  // default wide
	before   func(s *scene)
	hook     hook
	in       shape
	segments uint32   // packets on the wire that it stands for; 0: one
	odd      []oddity // applied to what goes in and to what must come out
	out      shape    // nil: what went in
	hop      []oddity // applied to what must come out: the next hop's
	by       byte     // the link that it comes in by, or leaves by: toClients, toBackends; 0: none
	back     shape    // what must go back there beside it, on tc
	verdict
	reasons map[string]uint64 // "drop no_flow": 1; all others must not move
	tally   bpf.Tally         // of all backends; what is not here must not move
}

type hook uint8

const (
	ingress hook = iota
	egress
)

type verdict uint8

const (
	passed verdict = iota
	dropped
	answered // sent back by the interface that it came in on
	sent     // past the stack
)

// A column runs the table on one kind of hook. Connections are opened on tc
// before, so a column's programs share its maps.
type column struct {
	name                            string
	attach                          func(r *rig) map[hook]*ebpf.Program // a hook that it has not is left out
	passed, dropped, answered, sent uint32
}

func columns() []column {
	return []column{{
		name: "tc", passed: next, dropped: drop, answered: redirect, sent: redirect,
		attach: func(r *rig) map[hook]*ebpf.Program {
			return map[hook]*ebpf.Program{ingress: r.SiskinIngress, egress: r.SiskinEgress}
		},
	}, {
		name: "XDP", passed: xdpPass, dropped: xdpDrop, answered: xdpTX, sent: xdpRedirect,
		attach: func(r *rig) map[hook]*ebpf.Program {
			return map[hook]*ebpf.Program{ingress: r.xdp()}
		},
	}}
}

// Verdicts of a program on XDP (enum xdp_action).
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// runOn runs a packet on an interface (0: any), that may stand for several
// segments on the wire.
func (s *scene) runOn(ifindex int, program *ebpf.Program, in []byte, segments uint32) (uint32, []byte) {
	s.t.Helper()
	if segments == 0 && ifindex == 0 || program.Type() != ebpf.SchedCLS {
		return s.run(program, in)
	}
	// struct __sk_buff of linux/bpf.h: ifindex, gso_segs and gso_size.
	skb := make([]byte, 192)
	binary.NativeEndian.PutUint32(skb[40:], uint32(ifindex))
	if segments > 0 {
		binary.NativeEndian.PutUint32(skb[164:], segments)
		binary.NativeEndian.PutUint32(skb[176:], (uint32(len(in))+segments-1)/segments)
	}
	out := make([]byte, len(in)+256)
	o := ebpf.RunOptions{Data: in, DataOut: out, Context: skb}
	verdict, err := program.Run(&o)
	if err != nil {
		s.t.Fatalf("run: %v", err)
	}
	return verdict, o.DataOut
}

// counts are all counters at one time.
type counts struct {
	reasons map[string]uint64
	tally   bpf.Tally
}

var kindNames = map[bpf.ReasonKind]string{bpf.Drop: "drop", bpf.Pass: "pass", bpf.Note: "note"}

func (s *scene) counts() counts {
	s.t.Helper()
	c := counts{reasons: map[string]uint64{}}
	for _, info := range bpf.Reasons() {
		c.reasons[kindNames[info.Kind]+" "+info.Name] = s.reason(info.Kind, info.Name)
	}
	for backend := range uint32(backends) {
		t := s.tally(backend)
		c.tally = tallied(c.tally, t, func(a, b uint64) uint64 { return a + b })
	}
	return c
}

// tallied combines two tallies field by field.
func tallied(a, b bpf.Tally, f func(a, b uint64) uint64) bpf.Tally {
	for _, pair := range [][2]*uint64{
		{&a.Opened, &b.Opened}, {&a.Closed, &b.Closed}, {&a.Forgotten, &b.Forgotten},
		{&a.Established, &b.Established}, {&a.Refused, &b.Refused}, {&a.Reset, &b.Reset},
		{&a.Timeout, &b.Timeout}, {&a.Unreachable, &b.Unreachable},
		{&a.Packets[0], &b.Packets[0]}, {&a.Packets[1], &b.Packets[1]},
		{&a.Bytes[0], &b.Bytes[0]}, {&a.Bytes[1], &b.Bytes[1]},
		{&a.Retransmits[0], &b.Retransmits[0]}, {&a.Retransmits[1], &b.Retransmits[1]},
	} {
		*pair[0] = f(*pair[0], *pair[1])
	}
	return a
}

func minus(a, b uint64) uint64 { return a - b }

// play runs one case and compares all that came of it.
func (c packetCase) play(t *testing.T, s *scene, col column, program *ebpf.Program) {
	if c.before != nil {
		c.before(s)
	}
	c.odd = append(slices.Clone(c.odd), c.stations()...)
	in := odd(c.in.bytes(s), c.odd...)
	var tap *wiretap
	if c.by != 0 && program.Type() == ebpf.SchedCLS {
		tap = newWiretap(t, s.index[c.by])
	}
	before := s.counts()
	verdict, out := s.runOn(s.index[c.by], program, in, c.segments)
	after := s.counts()
	if tap != nil {
		c.listen(t, s, tap)
	}
	for name, n := range before.reasons {
		after.reasons[name] -= n
	}
	maps.DeleteFunc(after.reasons, func(_ string, n uint64) bool { return n == 0 })

	want := [...]uint32{passed: col.passed, dropped: col.dropped, answered: col.answered, sent: col.sent}[c.verdict]
	if verdict != want {
		t.Errorf("verdict %d, want %d", int32(verdict), int32(want))
	}
	// Resolved only now: where a port was chosen, it is in the flow.
	if c.verdict != dropped {
		expected := in
		if c.out != nil {
			expected = odd(odd(c.out.bytes(s), c.odd...), c.hop...)
		}
		if !bytes.Equal(out, expected) {
			t.Errorf("bytes:\n in   %s\n got  %s\n want %s", shown(in), shown(out), shown(expected))
		}
	}
	if !maps.Equal(after.reasons, c.reasons) {
		t.Errorf("reasons that moved: %v, want %v", after.reasons, c.reasons)
	}
	if got := tallied(after.tally, before.tally, minus); got != c.tally {
		t.Errorf("tallies moved by\n got  %+v\n want %+v", got, c.tally)
	}
}

// stations puts the link-layer addresses of the case's link into a frame.
func (c packetCase) stations() []oddity {
	switch {
	case c.by == 0:
		return nil
	case c.hook == egress:
		return []oddity{left(c.by)}
	}
	return []oddity{arrived(c.by)}
}

// listen compares what went back by the link.
func (c packetCase) listen(t *testing.T, s *scene, tap *wiretap) {
	var want [][]byte
	if c.back != nil {
		frame := odd(odd(c.back.bytes(s), c.odd...), turned)
		if c.hook == egress {
			frame = untagged(frame) // the kernel does when it takes it in
		}
		want = append(want, frame)
	}
	if got := tap.heard(want != nil); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("went back:\n got  %x\n want %x", got, want)
	}
}

// shown is a frame in hex, up to where its headers surely end.
func shown(frame []byte) string {
	return fmt.Sprintf("%d bytes: %x", len(frame), frame[:min(len(frame), 160)])
}

func TestRootPacketCases(t *testing.T) {
	for _, col := range columns() {
		for _, f := range families() {
			t.Run(col.name+"/"+f.name, func(t *testing.T) {
				for _, w := range worlds() {
					playAll(t, w, col, f)
				}
			})
		}
	}
}

func playAll(t *testing.T, w world, col column, f family) {
	stage := newStage(t, w, f)
	programs := col.attach(stage.rig)
	for i, c := range packetCases() {
		program, ok := programs[c.hook]
		if c.world != w || !ok || c.only != "" && c.only != f.name || c.on != "" && c.on != col.name {
			continue
		}
		t.Run(c.what, func(t *testing.T) {
			r := *stage.rig
			r.t = t
			if stage.enter != nil {
				stage.enter(t)
			}
			s := &scene{rig: &r, family: f, at: maps.Clone(stage.at), index: stage.index}
			s.at[client], s.at[another] = clientOf(f, 1, i), clientOf(f, 2, i)
			c.play(t, s, col, program)
		})
	}
}

// clientOf is a client that no other case has.
func clientOf(f family, which, i int) netip.AddrPort {
	b := f.client.Addr().AsSlice()
	b[len(b)-2], b[len(b)-1] = byte(64*which+i>>7), byte(i&127+1)
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(40000+i))
}

// TestPacketCasesAreComplete holds the table against the counters: each must
// move in a case, so that no verdict goes untested.
func TestPacketCasesAreComplete(t *testing.T) {
	untestable := map[string]string{
		"note http2_unheard":  "the ring buffer would have to be full of frames that nobody reads",
		"drop rewrite_failed": "every byte that is written was read before, and the test run's packets are linear",
	}
	moved := map[string]bool{}
	names := map[string]bool{}
	for _, c := range packetCases() {
		id := fmt.Sprintf("%s %s", c.what, c.only)
		if names[id] {
			t.Errorf("two cases are called %q", id)
		}
		names[id] = true
		for reason := range c.reasons {
			moved[reason] = true
		}
	}
	for _, info := range bpf.Reasons() {
		name := kindNames[info.Kind] + " " + info.Name
		if why := untestable[name]; why == "" && !moved[name] {
			t.Errorf("no case moves the counter %q", name)
		}
		delete(moved, name)
	}
	for name := range moved {
		t.Errorf("there is no counter %q", name)
	}
}

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)
