package bpf_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

const isn, serverISN = 1000, 0xfffffff0 // the server's number wraps early

// open takes a connection through its handshake with a backend.
func (r *rig) open(client, vip, backend netip.AddrPort) {
	r.t.Helper()
	r.in("SYN", packet{src: client, dst: vip, flags: syn, seq: isn},
		packet{src: client, dst: backend, flags: syn, seq: isn})
	r.out("SYN-ACK", packet{src: backend, dst: client, flags: syn | ack, seq: serverISN, ack: isn + 1},
		packet{src: vip, dst: client, flags: syn | ack, seq: serverISN, ack: isn + 1})
	r.in("ACK", packet{src: client, dst: vip, flags: ack, seq: isn + 1, ack: serverISN + 1},
		packet{src: client, dst: backend, flags: ack, seq: isn + 1, ack: serverISN + 1})
}

func TestRootConnection(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		r.weight(bpf.Buckets)
		r.open(f.client, f.vip, f.canary)
		request, response := []byte("GET / HTTP/1.0\r\n\r\n"), []byte("HTTP/1.0 200 OK\r\n\r\nodd")
		data := packet{src: f.client, dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1, payload: request}
		want := data
		want.dst = f.canary
		r.in("request", data, want)
		r.in("request again", data, want)
		answer := packet{src: f.canary, dst: f.client, flags: ack, seq: serverISN + 1, ack: isn + 19, payload: response}
		back := answer
		back.src = f.vip
		r.out("response", answer, back)
		end := uint32(len(response))
		bye := packet{src: f.canary, dst: f.client, flags: fin | ack, seq: serverISN + 1 + end}
		byeOut := bye
		byeOut.src = f.vip
		r.out("FIN", bye, byeOut)
		if got := r.tally(2); got.Closed != 0 {
			t.Fatalf("closed after one FIN: %+v", got)
		}
		byeIn := packet{src: f.client, dst: f.vip, flags: fin | ack, seq: isn + 19, ack: serverISN + 2 + end}
		byeTo := byeIn
		byeTo.dst = f.canary
		r.in("client's FIN", byeIn, byeTo)

		got := r.tally(2)
		want2 := bpf.Tally{Opened: 1, Closed: 1, Established: 1, Packets: [2]uint64{5, 3},
			Bytes: [2]uint64{18, uint64(end)}, Retransmits: [2]uint64{1, 0}}
		if got != want2 {
			t.Fatalf("tally\n got  %+v\n want %+v", got, want2)
		}
		r.latencies(1, 1, 1)
	})
}

// latencies compares how many durations a version's histograms hold.
func (r *rig) latencies(version uint32, connect, response uint64) {
	r.t.Helper()
	var all []bpf.Latency
	if err := r.Latencies.Lookup(version, &all); err != nil {
		r.t.Fatal(err)
	}
	var c, s uint64
	for _, l := range all {
		for i := range bpf.HistogramBuckets {
			c += l.Connect.Bucket[i]
			s += l.Response.Bucket[i]
		}
	}
	if c != connect || s != response {
		r.t.Fatalf("histograms hold %d handshakes and %d responses, want %d and %d", c, s, connect, response)
	}
}

func TestRootDatagram(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		for _, noSum := range []bool{false, true} {
			if noSum && f.client.Addr().Is6() {
				continue // IPv6 has no such thing
			}
			question := packet{src: f.client, dst: f.vip, proto: unix.IPPROTO_UDP, payload: []byte("who?"), noSum: noSum}
			to := question
			to.dst = f.stable
			r.in("question", question, to)
			answer := packet{src: f.stable, dst: f.client, proto: unix.IPPROTO_UDP, payload: []byte("me"), noSum: noSum}
			from := answer
			from.src = f.vip
			r.out("answer", answer, from)
		}
		if got := r.tally(1); got.Opened != 1 || got.Bytes[1]/got.Packets[1] != 2 {
			t.Fatalf("one pseudo-connection of 2-byte answers, got %+v", got)
		}
	})
}

// TestRootUDPZeroSum looks for a checksum that comes out as zero, which must
// be sent as ones (RFC 768).
func TestRootUDPZeroSum(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		for i := range 1 << 16 {
			p := packet{src: f.client, dst: f.stable, proto: unix.IPPROTO_UDP, payload: []byte{byte(i >> 8), byte(i)}}
			if b := p.l4(); b[6] != 0xff || b[7] != 0xff {
				continue
			}
			in := p
			in.dst = f.vip
			r.in("datagram whose checksum is zero", in, p)
			return
		}
		t.Fatal("no payload gives a zero checksum")
	})
}

func TestRootForeignIsUntouched(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, p := range []packet{
			{src: f.client, dst: f.elsewhere, flags: syn},
			{src: f.client, dst: netip.AddrPortFrom(f.vip.Addr(), 443), flags: syn},
			{src: f.client, dst: f.elsewhere, proto: unix.IPPROTO_UDP, payload: []byte("x")},
			{src: f.client, dst: f.vip, proto: unix.IPPROTO_SCTP, payload: make([]byte, 20)},
			{src: f.stable, dst: f.another, flags: ack, seq: 7}, // a direct client of the backend
		} {
			r.in("ingress", p, p)
			r.out("egress", p, p)
		}
		for range 2000 {
			frame := packet{src: f.client, dst: f.elsewhere}.frame()
			for i := 14; i < len(frame); i++ {
				if rng.IntN(4) == 0 {
					frame[i] = byte(rng.Uint32())
				}
			}
			header := 14 + 20
			if f.client.Addr().Is6() {
				header = 14 + 40 // the test run refuses less
			}
			frame = frame[:header+rng.IntN(len(frame)-header)]
			r.expect(r.SiskinIngress, "noise", frame, frame)
			r.expect(r.SiskinEgress, "noise", frame, frame)
		}
	})
}

func TestRootRefusals(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		stray := packet{src: f.client, dst: f.vip, flags: ack, seq: 5}
		r.dropped("stray segment to a virtual address", stray)
		r.frontend(1, f.vip, unix.IPPROTO_TCP, bpf.FrontendReal, 1, 2)
		r.in("stray segment to a real address", stray, stray)
		r.frontend(1, f.vip, unix.IPPROTO_TCP, bpf.FrontendRetired, 1, 2)
		start := packet{src: f.client, dst: f.vip, flags: syn}
		r.in("SYN to a deleted frontend", start, start)
		key := bpf.TupleFrom(f.vip, unix.IPPROTO_TCP)
		r.put(r.Frontends, key, bpf.Frontend{Id: 1})
		r.dropped("SYN without a backend", start)
		if r.reason(bpf.Drop, "no_flow") != 1 || r.reason(bpf.Pass, "no_flow") != 1 ||
			r.reason(bpf.Pass, "frontend_deleted") != 1 || r.reason(bpf.Drop, "no_backend") != 1 {
			t.Fatal("each refusal must be counted once, by its reason")
		}
	})
}

func TestRootOddPackets(t *testing.T) {
	f := families()[0]
	r := newRig(t, nil)
	r.backend(1, f.stable, backendOptions{frontend: 1})
	r.frontend(1, f.vip, unix.IPPROTO_TCP, 0, 1)
	p := packet{src: f.client, dst: f.vip, flags: syn, options: 4}
	r.in("IP options", p, p)
	if r.reason(bpf.Pass, "ip_options") != 1 {
		t.Fatal("options not counted")
	}
	whole := packet{src: f.client, dst: f.vip, flags: syn}.frame()
	short := whole[:len(whole)-4]
	r.expect(r.SiskinIngress, "shorter than its header says", short, short)
	if r.reason(bpf.Pass, "truncated") != 1 {
		t.Fatal("truncation not counted")
	}
}

func TestRootClosedAndReopened(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		r.weight(bpf.Buckets)
		r.open(f.client, f.vip, f.canary)
		r.weight(0)
		again := packet{src: f.client, dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}
		kept := again
		kept.dst = f.canary
		r.in("established flow keeps its backend", again, kept)
		// An off-path RST with a number far off must not close it.
		forged := packet{src: f.client, dst: f.vip, flags: rst, seq: isn + 1<<30}
		forgedTo := forged
		forgedTo.dst = f.canary
		r.in("forged RST", forged, forgedTo)
		if got := r.tally(2); got.Closed != 0 {
			t.Fatalf("a forged RST closed the flow: %+v", got)
		}
		bye := packet{src: f.client, dst: f.vip, flags: rst, seq: isn + 1}
		byeTo := bye
		byeTo.dst = f.canary
		r.in("RST", bye, byeTo)
		if got := r.tally(2); got.Closed != 1 || got.Reset != 0 {
			t.Fatalf("a client's RST closes and is no error: %+v", got)
		}
		r.open(f.client, f.vip, f.stable)
		if r.reason(bpf.Note, "reopened") != 1 {
			t.Fatal("reopening not counted")
		}
		if got := r.tally(2); got.Forgotten != 1 {
			t.Fatalf("the canary's record was replaced: %+v", got)
		}
	})
}

func TestRootServerFailures(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		start := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
		to := start
		to.dst = f.stable
		r.in("SYN", start, to)
		no := packet{src: f.stable, dst: f.client, flags: rst | ack, ack: isn + 1}
		noBack := no
		noBack.src = f.vip
		r.out("refused", no, noBack)
		other := netip.AddrPortFrom(f.client.Addr(), 40001)
		r.open(other, f.vip, f.stable)
		cut := packet{src: f.stable, dst: other, flags: rst, seq: serverISN + 1}
		cutBack := cut
		cutBack.src = f.vip
		r.out("reset before an answer", cut, cutBack)
		got := r.tally(1)
		if got.Refused != 1 || got.Reset != 1 || got.Closed != 2 || got.Timeout != 0 {
			t.Fatalf("one refused, one reset: %+v", got)
		}
	})
}

func TestRootRetriesAreChosenAgain(t *testing.T) {
	each(t, map[string]any{"timeout_ns": uint64(0)}, func(t *testing.T, r *rig, f family) {
		start := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
		canary, stable := start, start
		canary.dst, stable.dst = f.canary, f.stable
		r.weight(bpf.Buckets)
		r.in("SYN", start, canary)
		r.in("retry while entitled", start, canary)
		r.in("another", start, canary)
		if got := r.tally(2); got.Timeout != 1 {
			t.Fatalf("a timeout is counted once: %+v", got)
		}
		r.weight(0)
		r.in("retry after the canary was taken back", start, stable)
		if r.reason(bpf.Note, "rechosen") != 1 {
			t.Fatal("not counted as chosen again")
		}
		if a, b := r.tally(2), r.tally(1); a.Opened != 1 || a.Closed != 1 || b.Opened != 1 {
			t.Fatalf("canary %+v, stable %+v", a, b)
		}
	})
}

// TestRootUnansweredDatagrams follow the weights: nobody has answered, so no
// connection is there to keep.
func TestRootUnansweredDatagrams(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		p := packet{src: f.client, dst: f.vip, proto: unix.IPPROTO_UDP, payload: []byte("log")}
		canary, stable := p, p
		canary.dst, stable.dst = f.canary, f.stable
		r.weight(bpf.Buckets)
		r.in("datagram", p, canary)
		r.weight(0)
		r.in("datagram after the canary was taken back", p, stable)
		r.in("and another", p, stable)
		if r.reason(bpf.Note, "rechosen") != 1 {
			t.Fatal("not counted as chosen again")
		}
	})
}

// TestRootAging waits for the kernel's own timer: no daemon is there.
func TestRootAging(t *testing.T) {
	set := map[string]any{"idle_syn": uint32(50), "idle_closed": uint32(50), "idle_pressed": uint32(50), "flows": uint32(4)}
	each(t, set, func(t *testing.T, r *rig, f family) {
		if ret, _ := r.run(r.SiskinStart, packet{src: f.client, dst: f.vip}.frame()); ret != 0 {
			t.Fatalf("siskin_start returned %d", ret)
		}
		r.open(f.client, f.vip, f.stable)
		at := func(i int) netip.AddrPort { return netip.AddrPortFrom(f.another.Addr(), uint16(20000+i)) }
		const rounds = 9 // through every slot more than twice
		for i := range rounds {
			p := packet{src: at(i), dst: f.vip, flags: syn, seq: isn}
			to := p
			to.dst = f.stable
			r.in("SYN that nobody answers", p, to)
			r.await("the table to forget it", func() bool { return r.tally(1).Forgotten == uint64(i+1) })
		}
		got := r.tally(1)
		if got.Timeout != rounds || got.Opened-got.Closed != 1 {
			t.Fatalf("every dead handshake is a timeout, and the open flow stays: %+v", got)
		}
		var clock bpf.Clockwork
		if err := r.Aging.Lookup(uint32(0), &clock); err != nil {
			t.Fatal(err)
		}
		if clock.Taken-clock.Freed != 1 || clock.Unproven[0] != 0 {
			t.Fatalf("one slot in use and no handshake: %+v", clock)
		}
		p := packet{src: f.client, dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}
		to := p
		to.dst = f.stable
		r.in("the idle connection", p, to)
	})
}

// await polls what only the kernel's timer can bring about.
func (r *rig) await(what string, done func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited 20 s for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
