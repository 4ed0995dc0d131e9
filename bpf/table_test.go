package bpf_test

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"siskin.dev/siskin/bpf"
)

// TestRootRollBack refuses a flow for want of room when its source port was
// taken already: the port must be free again.
func TestRootRollBack(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			s := newStage(t, full, f)
			s.at[client] = clientOf(f, 1, 0)
			s.send(ingress, aSYN.fromTo(client, remoteVIP))
			if alias, err := s.Aliases.NextKeyBytes(nil); alias != nil || err != nil {
				t.Errorf("a flow that was never made holds a port: %x, %v", alias, err)
			}
			if s.reason(bpf.Drop, "table_full") != 1 {
				t.Error("the table was to be full")
			}
		})
	}
}

// TestRootForeignBitOfTheGate gives a backend's answer the bit of a frontend:
// with thousands of frontends that is so for one answer in a hundred.
func TestRootForeignBitOfTheGate(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			s := newStage(t, wide, f)
			s.at[client] = clientOf(f, 1, 0)
			opened(remoteVIP, remote)(s)
			s.openGate(bpf.GateFrontends, bpf.TupleFrom(s.addr(onHost), tcp))
			reply := sketch{remote, onHost, packet{flags: ack, seq: serverISN + 1, ack: isn + 1}}
			s.expect(s.SiskinIngress, "answer", reply.bytes(s), reply.fromTo(remote, between).bytes(s))
		})
	}
}

// TestRootIdleFlowsStay floods a table that holds idle connections: refused is
// who comes, not who is there.
func TestRootIdleFlowsStay(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	each(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, r *rig, f family) {
		const idle = 700
		for i := range idle {
			r.open(clientOf(f, 1, i), f.vip, f.stable)
		}
		var group sync.WaitGroup
		for which := range 2 { // two threads, so the flood comes on more than one CPU
			seed := rng.Uint64()
			group.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 0))
				for range 10_000 {
					from := netip.AddrPortFrom(clientOf(f, 2, rng.IntN(8000)).Addr(), uint16(1024+rng.IntN(30000)+30000*which))
					if _, _, err := r.SiskinIngress.Test(packet{src: from, dst: f.vip, flags: syn, seq: isn}.frame()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		for i := range idle {
			p := packet{src: clientOf(f, 1, i), dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}
			to := p
			to.dst = f.stable
			r.in("idle connection", p, to)
		}
	})
}
