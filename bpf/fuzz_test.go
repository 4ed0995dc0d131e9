package bpf_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
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
	onXDP  *ebpf.Program
	scenes []*scene
	routed bool
	inputs int
}

const (
	fuzzPorts  = 50000 // first source port that is ours
	fuzzOpen   = 4     // clients with open connections, per family
	fuzzReopen = 5000  // inputs between two openings: a RST may get through
)

// newArena brings everything up. routed: also what is redirected past the
// stack; the test's thread is in a namespace made by enterRouted.
func newArena(t testing.TB, routed bool) *arena {
	a := &arena{
		rig: newRig(t, map[string]any{
			"flows": uint32(4096), "port_min": uint16(fuzzPorts), "port_max": uint16(fuzzPorts + 63),
			// What the fuzzer opens shall not fill the table.
			"idle_syn": uint32(500), "idle_udp": uint32(500), "idle_pressed": uint32(100), "idle_closed": uint32(500),
		}),
		judge: &judge{
			frontends: map[service]front{}, endpoints: map[service]rear{}, sources: map[netip.Addr]bool{},
			spoken: map[netip.Addr]bool{}, rules: map[string]int{}, min: fuzzPorts, max: fuzzPorts + 63,
			hops: map[[2]string]bool{}, routers: map[netip.Addr]bool{},
		},
		routed: routed,
	}
	a.onXDP = a.xdp()
	for _, to := range []net.HardwareAddr{station(toClients, 1), station(toBackends, 2), station(toBackends, 3)} {
		a.hops[[2]string{to.String(), station(to[4], 0).String()}] = true
	}
	for i, f := range families() {
		s := &scene{rig: a.rig, family: f, at: roles(f)}
		a.scenes = append(a.scenes, s)
		if routed {
			s.connect(t.(*testing.T))
		}
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

// nextDoor is a scene with a client on the clients' link itself, whose
// link-layer address nobody knows.
func (a *arena) nextDoor(s *scene) *scene {
	c := a.as(s, 0)
	c.at[client] = clientOf(s.family, 3, 8)
	return c
}

// settle brings up the services of a family, in the maps and for the judge.
func (a *arena) settle(s *scene, n uint32) {
	id := 1 + 7*n // of frontends and of backends
	redirect := bpf.BackendRedirect | bpf.BackendXDP
	a.sources[s.family.host] = true
	if router := clientOf(s.family, 3, 0).Addr(); a.routed {
		a.routers[router] = true
		a.links = append(a.links, netip.PrefixFrom(router, router.BitLen()-8).Masked())
	}
	s.backend(id, s.at[stable], backendOptions{frontend: id})
	s.backend(id+1, s.at[canary], backendOptions{slot: 1, frontend: id})
	s.backend(id+2, s.at[remote], backendOptions{flags: bpf.BackendRemote, source: s.family.host, frontend: id + 2})
	s.backend(id+3, s.at[shared], backendOptions{flags: bpf.BackendShared})
	s.backend(id+4, s.at[near1], backendOptions{flags: redirect, ifindex: uint32(s.index[toBackends]), frontend: id + 5})
	s.backend(id+5, s.at[far1], backendOptions{flags: redirect | bpf.BackendRemote, source: s.family.host, ifindex: uint32(s.index[toBackends]), frontend: id + 6})
	for _, proto := range []uint8{tcp, udp} {
		a.serve(s, id, vip, proto, 0, id, stable, id+1, canary)
		a.serve(s, id+2, remoteVIP, proto, 0, id+2, remote)
		if a.routed {
			a.serve(s, id+5, nearVIP, proto, 0, id+4, near1)
			a.serve(s, id+6, farVIP, proto, 0, id+5, far1)
		}
	}
	a.serve(s, id+1, realVIP, tcp, bpf.FrontendReal, id, stable)
	a.serve(s, id+3, firstVIP, tcp, 0, id+3, shared)
	a.serve(s, id+4, secondVIP, tcp, 0, id+3, shared)
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
		fe.moves = who == remote || who == shared || who == far1
		fe.sends = who == near1 || who == far1
		if who == remote || who == far1 {
			fe.source = s.family.host
		}
		key := service{s.at[who], kind}
		ep := a.endpoints[key]
		ep.frontends = append(ep.frontends, s.at[at])
		ep.moves, ep.sends, ep.source = fe.moves, fe.sends, fe.source
		a.endpoints[key] = ep
	}
	a.frontends[service{s.at[at], kind}] = fe
	s.frontend(id, s.at[at], proto, flags|bpf.FrontendRead, ids...)
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
			if a.routed {
				opened(nearVIP, near1)(c)
				opened(farVIP, far1)(c)
				c.send(ingress, someUDP.fromTo(client, farVIP))
			}
		}
		if a.routed {
			c := a.nextDoor(s)
			a.spoken[c.at[client].Addr()] = true
			opened(nearVIP, near1)(c)
		}
	}
	a.weight(bpf.Buckets / 2)
}

// try runs one frame on a hook and judges it.
func (a *arena) try(h hook, xdp bool, frame []byte) (string, trial) {
	if a.inputs%fuzzReopen == 0 {
		a.reopen()
	}
	a.inputs++
	t := trial{hook: h, xdp: xdp, in: slices.Clone(frame)}
	program := a.SiskinIngress
	col := columns()[0]
	switch {
	case xdp:
		program, col = a.onXDP, columns()[1]
	case h == egress:
		program = a.SiskinEgress
	}
	verdict, out, err := program.Test(frame)
	if err != nil {
		return "", t // the test run refuses it: shorter than its own headers
	}
	t.out = out
	switch verdict {
	case col.passed:
		t.fate = fatePassed
	case col.dropped:
		t.fate, t.out = fateDropped, t.in
	case col.sent, col.answered:
		t.fate = fateSent
	default:
		return fmt.Sprintf("verdict %d", int32(verdict)), t
	}
	return a.verdict(t), t
}

// Bits of what FuzzPacket is given besides the frame.
const (
	howEgress = 1 << iota
	howMended // right checksums
	howXDP
)

// FuzzPacket lets Go's fuzzer make the packets.
func FuzzPacket(f *testing.F) {
	a := newArena(f, false)
	for _, s := range a.seeds(1) {
		f.Add(uint8(s.hook), s.frame)
		f.Add(uint8(s.hook)|howMended, s.frame)
		if s.hook == ingress {
			f.Add(uint8(howXDP), s.frame)
		}
	}
	f.Fuzz(func(t *testing.T, how uint8, frame []byte) {
		if len(frame) < 14 || len(frame) > 3000 {
			t.Skip("no frame")
		}
		a.t = t
		frame = slices.Clone(frame)
		if how&howMended != 0 {
			mend(frame)
		}
		h := hook(how & howEgress)
		a.mustHold(h, h == ingress && how&howXDP != 0, frame)
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
	enterRouted(t)
	a := newArena(t, true)
	seeds := a.seeds(fuzzOpen)
	for _, s := range seeds {
		a.mustHold(s.hook, false, s.frame)
		if s.hook == ingress {
			a.mustHold(s.hook, true, s.frame)
		}
	}
	for _, rule := range rules() {
		if a.rules[rule] == 0 {
			t.Errorf("no seed is changed as %q: the fuzzer would not get that deep", rule)
		}
	}
	for end := time.Now().Add(*fuzzFor); time.Now().Before(end); {
		for range 100 {
			s := seeds[rng.IntN(len(seeds))]
			a.mustHold(s.hook, s.hook == ingress && rng.IntN(2) == 0, a.mutate(rng, s.frame))
		}
	}
	t.Logf("%d packets; changes by rule: %v", a.inputs, a.rules)
}

func (a *arena) mustHold(h hook, xdp bool, frame []byte) {
	a.t.Helper()
	if wrong, t := a.try(h, xdp, frame); wrong != "" {
		a.t.Fatalf("packet %d, %s (XDP: %v): %s\n in   %x\n out  %x", a.inputs,
			[...]string{"ingress", "egress"}[h], xdp, wrong, t.in, t.out)
	}
}
