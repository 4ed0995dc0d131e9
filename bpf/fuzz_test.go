package bpf_test

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"siskin.dev/siskin/bpf"
)

var (
	fuzzFor  = flag.Duration("fuzzfor", 3*time.Second, "how long TestRootFuzzPackets runs")
	fuzzSeed = flag.Uint64("fuzzseed", 0, "its seed; 0: a new one")
)

// An arena is the programs with services and open connections of both
// families, and the judge of what they do.
type arena struct {
	*rig
	*judge
	scenes []*scene
	inputs int
}

const (
	fuzzPorts  = 50000 // first source port that is ours
	fuzzOpen   = 4     // clients with open connections, per family
	fuzzReopen = 5000  // inputs between two openings: a RST may get through
)

func newArena(t testing.TB) *arena {
	a := &arena{
		rig: newRig(t, map[string]any{
			"flows": uint32(4096), "port_min": uint16(fuzzPorts), "port_max": uint16(fuzzPorts + 63),
			// What the fuzzer opens shall not fill the table.
			"idle_syn": uint32(500), "idle_udp": uint32(500), "idle_pressed": uint32(100), "idle_closed": uint32(500),
		}),
		judge: &judge{
			frontends: map[service]front{}, endpoints: map[service]rear{}, sources: map[netip.Addr]bool{},
			spoken: map[netip.Addr]bool{}, rules: map[string]int{}, min: fuzzPorts, max: fuzzPorts + 63,
		},
	}
	for i, f := range families() {
		s := &scene{rig: a.rig, family: f, at: roles(f)}
		a.scenes = append(a.scenes, s)
		a.settle(s, uint32(i))
	}
	frame := sketch{client, vip, packet{}}.bytes(a.as(a.scenes[0], 0))
	if ret, _ := a.run(a.SiskinStart, frame); ret != 0 {
		t.Fatalf("siskin_start returned %d", ret)
	}
	return a
}

// as is a scene with one of the clients that have open connections. Their ports
// are of the range, so the kernel keeps them and they are the same in each run.
func (a *arena) as(s *scene, i int) *scene {
	c := *s
	c.at = map[role]netip.AddrPort{}
	for who, at := range s.at {
		c.at[who] = at
	}
	c.at[client] = netip.AddrPortFrom(clientOf(s.family, 1, i).Addr(), uint16(fuzzPorts+i))
	c.at[another] = clientOf(s.family, 2, i)
	c.at[between] = c.at[client]
	c.at[onHost] = netip.AddrPortFrom(s.family.host, uint16(fuzzPorts+i))
	return &c
}

// settle brings up the services of a family, in the maps and for the judge.
func (a *arena) settle(s *scene, n uint32) {
	toStable, toCanary, toRemote, toShared := 1+4*n, 2+4*n, 3+4*n, 4+4*n
	id := 1 + 5*n
	s.backend(toStable, s.at[stable], backendOptions{frontend: id})
	s.backend(toCanary, s.at[canary], backendOptions{slot: 1, frontend: id})
	s.backend(toRemote, s.at[remote], backendOptions{flags: bpf.BackendRemote, source: s.family.host, frontend: id + 2})
	s.backend(toShared, s.at[shared], backendOptions{flags: bpf.BackendShared})
	a.sources[s.family.host] = true
	for _, proto := range []uint8{tcp, udp} {
		a.serve(s, id, vip, proto, 0, toStable, stable, toCanary, canary)
		a.serve(s, id+2, remoteVIP, proto, 0, toRemote, remote)
	}
	a.serve(s, id+1, realVIP, tcp, bpf.FrontendReal, toStable, stable)
	a.serve(s, id+3, firstVIP, tcp, 0, toShared, shared)
	a.serve(s, id+4, secondVIP, tcp, 0, toShared, shared)
}

// serve makes one frontend; backends are pairs of id and role.
func (a *arena) serve(s *scene, id uint32, at role, proto uint8, flags uint32, backends ...any) {
	var ids []uint32
	fe := front{virtual: flags&bpf.FrontendReal == 0}
	kind := layers.IPProtocol(proto)
	for i := 0; i < len(backends); i += 2 {
		who := backends[i+1].(role)
		ids = append(ids, backends[i].(uint32))
		fe.backends = append(fe.backends, s.at[who])
		fe.moves = who == remote || who == shared
		key := service{s.at[who], kind}
		ep := a.endpoints[key]
		ep.frontends = append(ep.frontends, s.at[at])
		ep.moves = fe.moves
		if who == remote {
			ep.source = s.family.host
		}
		a.endpoints[key] = ep
	}
	a.frontends[service{s.at[at], kind}] = fe
	s.frontend(id, s.at[at], proto, flags, ids...)
}

// reopen opens the connections that should always be there, with new flows
// going to both versions after them.
func (a *arena) reopen() {
	a.weight(0)
	for _, s := range a.scenes {
		for i := range fuzzOpen {
			c := a.as(s, i)
			a.spoken[c.at[client].Addr()] = true
			opened(vip, stable)(c)
			opened(remoteVIP, remote)(c)
			opened(firstVIP, shared)(c)
			c.send(ingress, someUDP)
			c.send(ingress, someUDP.fromTo(client, remoteVIP))
		}
	}
	a.weight(bpf.Buckets / 2)
}

// try runs one frame on a hook and judges it.
func (a *arena) try(h hook, frame []byte) (string, []byte) {
	if a.inputs%fuzzReopen == 0 {
		a.reopen()
	}
	a.inputs++
	program := a.SiskinIngress
	if h == egress {
		program = a.SiskinEgress
	}
	in := slices.Clone(frame)
	verdict, out, err := program.Test(frame)
	if err != nil {
		return "", nil // the test run refuses it: shorter than its own headers
	}
	switch verdict {
	case next:
		return a.judge.verdict(h, in, fatePassed, out), out
	case drop:
		return a.judge.verdict(h, in, fateDropped, in), out
	}
	return "a verdict that is none", out
}

// FuzzPacket lets Go's fuzzer make the packets. The bits of `how`: at egress;
// with right checksums.
func FuzzPacket(f *testing.F) {
	a := newArena(f)
	for _, s := range a.seeds(1) {
		f.Add(uint8(s.hook), s.frame)
		f.Add(uint8(s.hook)|2, s.frame)
	}
	f.Fuzz(func(t *testing.T, how uint8, frame []byte) {
		if len(frame) < 14 || len(frame) > 3000 {
			t.Skip("no frame")
		}
		a.t = t
		frame = slices.Clone(frame)
		if how&2 != 0 {
			mend(frame)
		}
		if wrong, out := a.try(hook(how&1), frame); wrong != "" {
			t.Fatalf("%s\n in   %x\n out  %x", wrong, frame, out)
		}
	})
}

// TestRootFuzzPackets mutates valid packets for a while:
//
//	go test -run TestRootFuzzPackets ./bpf -args -fuzzfor 10m
func TestRootFuzzPackets(t *testing.T) {
	seed := *fuzzSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	a := newArena(t)
	seeds := a.seeds(fuzzOpen)
	for _, s := range seeds {
		a.mustHold(s.hook, s.frame)
	}
	for _, rule := range rules() {
		if a.rules[rule] == 0 {
			t.Errorf("no seed is changed as %q: the fuzzer would not get that deep", rule)
		}
	}
	for end := time.Now().Add(*fuzzFor); time.Now().Before(end); {
		for range 100 {
			s := seeds[rng.IntN(len(seeds))]
			a.mustHold(s.hook, a.mutate(rng, s.frame))
		}
	}
	t.Logf("%d packets; changes by rule: %v", a.inputs, a.rules)
}

func (a *arena) mustHold(h hook, frame []byte) {
	a.t.Helper()
	if wrong, out := a.try(h, frame); wrong != "" {
		a.t.Fatalf("packet %d, %s: %s\n in   %x\n out  %x", a.inputs, [...]string{"ingress", "egress"}[h], wrong, frame, out)
	}
}
