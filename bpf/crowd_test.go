package bpf_test

import (
	"net/netip"
	"testing"
	"time"
)

// TestRootCrowdedHandshakes fills the quota of handshakes, answered ones, as a
// flood does. There must be room again within a second, or whoever comes after
// the flood still suffers from it; and then there is patience with the others.
func TestRootCrowdedHandshakes(t *testing.T) {
	const flows, quota = 64, 16
	each(t, map[string]any{"flows": uint32(flows)}, func(t *testing.T, r *rig, f family) {
		if ret, _ := r.run(r.SiskinStart, packet{src: f.client, dst: f.vip}.frame()); ret != 0 {
			t.Fatalf("siskin_start returned %d", ret)
		}
		at := func(i int) netip.AddrPort { return netip.AddrPortFrom(f.another.Addr(), uint16(20000+i)) }
		shake := func(i int) {
			t.Helper()
			start := packet{src: at(i), dst: f.vip, flags: syn, seq: isn}
			to := start
			to.dst = f.stable
			r.in("SYN", start, to)
			answer := packet{src: f.stable, dst: at(i), flags: syn | ack, seq: serverISN, ack: isn + 1}
			home := answer
			home.src = f.vip
			r.out("SYN-ACK", answer, home)
		}
		r.open(f.client, f.vip, f.stable)
		begun := time.Now()
		for i := range quota {
			shake(i)
		}
		r.dropped("SYN beyond the quota", packet{src: at(quota), dst: f.vip, flags: syn, seq: isn})
		r.await("room for new clients", func() bool { return r.tally(1).Closed > 0 })
		took := time.Since(begun)
		t.Logf("there was room after %v", took)
		if took > time.Second {
			t.Errorf("there was no room for %v", took)
		}
		shake(quota)
		time.Sleep(time.Second) // nothing more may happen
		if n := r.tally(1).Closed; n > quota/2 {
			t.Errorf("%d of %d handshakes were given up although half of the quota was free", n, quota)
		}
		p := packet{src: f.client, dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}
		to := p
		to.dst = f.stable
		r.in("the established connection", p, to)
	})
}
