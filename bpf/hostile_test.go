package bpf_test

import (
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"siskin.dev/siskin/bpf"
)

// TestRootImpatientClient repeats its SYN faster than any server could answer,
// and asks one that sends something else than an answer.
func TestRootImpatientClient(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		start := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
		to := start
		to.dst = f.stable
		for range 10 {
			r.in("SYN", start, to)
		}
		if got := r.tally(1); got.Timeout != 0 || got.Opened != 1 {
			t.Fatalf("ten SYNs at once are one connection and no timeout: %+v", got)
		}
	})
}

// TestRootGuesses sends what an attacker can who sees no packet of the
// connection: nothing of it may change the flow or its counters.
func TestRootGuesses(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		r.open(f.client, f.vip, f.stable)
		before := r.tally(1)
		for i, guess := range []packet{
			{flags: rst, seq: isn + 1<<29},
			{flags: fin | ack, seq: isn + 1<<29, ack: serverISN + 1},
			{flags: fin | ack, seq: isn + 1, ack: 1 << 29},
			{flags: ack, seq: isn + 1<<23, ack: 1 << 28, payload: []byte("x")},
			{flags: ack, seq: isn + 1<<29, ack: serverISN + 1, payload: []byte("x")},
			{flags: syn, seq: 77},
		} {
			guess.src, guess.dst = f.client, f.vip
			to := guess
			to.dst = f.stable
			r.in("a guess", guess, to)
			after := r.tally(1)
			after.Packets, after.Retransmits = before.Packets, before.Retransmits
			if after != before {
				t.Fatalf("guess %d changed the counters\n from %+v\n to   %+v", i, before, after)
			}
		}
		bye := packet{src: f.client, dst: f.vip, flags: rst, seq: isn + 1}
		to := bye
		to.dst = f.stable
		r.in("the client's own RST", bye, to)
		if got := r.tally(1); got.Closed != 1 {
			t.Fatalf("the real RST is believed: %+v", got)
		}
	})
}

// TestRootNewAnswer lets a server begin its handshake anew, as with SYN cookies
// when the minute turns.
func TestRootNewAnswer(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		start := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
		to := start
		to.dst = f.stable
		r.in("SYN", start, to)
		for _, number := range []uint32{serverISN, 12345} {
			answer := packet{src: f.stable, dst: f.client, flags: syn | ack, seq: number, ack: isn + 1}
			home := answer
			home.src = f.vip
			r.out("SYN-ACK", answer, home)
		}
		done := packet{src: f.client, dst: f.vip, flags: ack, seq: isn + 1, ack: 12346}
		doneTo := done
		doneTo.dst = f.stable
		r.in("ACK of the second", done, doneTo)
		if got := r.tally(1); got.Established != 1 || got.Opened != 1 {
			t.Fatalf("one established connection: %+v", got)
		}
	})
}

// TestRootReopenOnTwoCPUs sends one SYN from several threads at a time: the
// record must be replaced by one of them only, or quota and ports leak.
func TestRootReopenOnTwoCPUs(t *testing.T) {
	f := families()[0]
	r := natRig(t, f)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for i := range 20_000 {
				frame := packet{src: f.client, dst: f.vip, flags: syn, seq: uint32(i) * 70000}.frame()
				if _, _, err := r.SiskinIngress.Test(frame); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	var clock bpf.Clockwork
	if err := r.Aging.Lookup(uint32(0), &clock); err != nil {
		t.Fatal(err)
	}
	aliases := 0
	var key bpf.Alias
	var value bpf.FlowKey
	for all := r.Aliases.Iterate(); all.Next(&key, &value); {
		aliases++
	}
	got := r.tally(1)
	if clock.Unproven[0] != 1 || aliases != 1 || got.Opened-got.Closed != 1 || got.Opened-got.Forgotten != 1 {
		t.Fatalf("one flow is open: %d handshakes, %d aliases, %+v", clock.Unproven[0], aliases, got)
	}
}

// TestRootOneErrorAFlow lets a handshake fail in every way there is.
func TestRootOneErrorAFlow(t *testing.T) {
	each(t, map[string]any{"timeout_ns": uint64(0)}, func(t *testing.T, r *rig, f family) {
		start := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
		to := start
		to.dst = f.stable
		for range 3 {
			r.in("SYN", start, to)
		}
		kind := icmpKinds(f)[1]
		r.expect(r.SiskinEgress, "unreachable",
			icmpError(f.stable.Addr(), f.client.Addr(), kind[0], kind[1], to, 8),
			icmpError(f.vip.Addr(), f.client.Addr(), kind[0], kind[1], start, 8))
		no := packet{src: f.stable, dst: f.client, flags: rst | ack, ack: isn + 1}
		back := no
		back.src = f.vip
		r.out("refused", no, back)
		got := r.tally(1)
		if got.Timeout != 1 || got.Unreachable != 0 || got.Refused != 0 {
			t.Fatalf("the first reason counts, and only that: %+v", got)
		}
	})
}

func TestRootFullTable(t *testing.T) {
	each(t, map[string]any{"flows": uint32(8)}, func(t *testing.T, r *rig, f family) {
		at := func(i int) netip.AddrPort { return netip.AddrPortFrom(f.client.Addr(), uint16(20000+i)) }
		for i := range 8 {
			r.open(at(i), f.vip, f.stable)
		}
		r.dropped("one too many", packet{src: at(9), dst: f.vip, flags: syn})
		if r.reason(bpf.Drop, "table_full") != 1 {
			t.Fatal("a full table is not counted")
		}
		for i := range 8 { // nothing old was damaged
			p := packet{src: at(i), dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}
			to := p
			to.dst = f.stable
			r.in("old flow", p, to)
		}
	})
}

func TestRootEmbryonicQuota(t *testing.T) {
	each(t, map[string]any{"flows": uint32(8)}, func(t *testing.T, r *rig, f family) {
		dropped := 0
		for i := range 20 {
			p := packet{src: netip.AddrPortFrom(f.client.Addr(), uint16(20000+i)), dst: f.vip, flags: syn, seq: isn}
			if verdict, _ := r.run(r.SiskinIngress, p.frame()); verdict == drop {
				dropped++
			}
		}
		if dropped != 18 || r.reason(bpf.Drop, "quota") != 18 {
			t.Fatalf("%d of 20 SYNs refused with room for 8 flows, want 18", dropped)
		}
	})
}
