package bpf_test

import (
	"testing"

	"siskin.dev/siskin/bpf"
)

// TestRootResetBeforeTheAnswer ends a handshake before both SYNs were seen, by
// either end. The flow is over for both, so that the next SYN from this port
// is a new connection and is given a backend anew; what is still under way
// finds the one it belongs to, and revives nothing.
func TestRootResetBeforeTheAnswer(t *testing.T) {
	cases := []struct {
		who  string
		want bpf.Tally // of the canary after the end
	}{
		{"client", bpf.Tally{Opened: 1, Closed: 1, Packets: [2]uint64{2, 0}}},
		{"server", bpf.Tally{Opened: 1, Closed: 1, Refused: 1, Packets: [2]uint64{1, 1}}},
	}
	for _, c := range cases {
		t.Run(c.who, func(t *testing.T) {
			each(t, nil, func(t *testing.T, r *rig, f family) {
				r.weight(bpf.Buckets)
				start := packet{src: f.client, dst: f.vip, flags: syn, seq: isn}
				toCanary, toStable := start, start
				toCanary.dst, toStable.dst = f.canary, f.stable
				r.in("SYN", start, toCanary)
				if c.who == "client" {
					cut := packet{src: f.client, dst: f.vip, flags: rst, seq: isn + 1}
					to := cut
					to.dst = f.canary
					r.in("RST of the client", cut, to)
				} else {
					no := packet{src: f.canary, dst: f.client, flags: rst | ack, ack: isn + 1}
					home := no
					home.src = f.vip
					r.out("RST of the server", no, home)
				}
				if got := r.tally(2); got != c.want {
					t.Fatalf("after the RST\n got  %+v\n want %+v", got, c.want)
				}

				// The answer to the SYN was under way, and so was the client's.
				late := packet{src: f.canary, dst: f.client, flags: syn | ack, seq: serverISN, ack: isn + 1}
				home := late
				home.src = f.vip
				r.out("late SYN-ACK", late, home)
				ack := packet{src: f.client, dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}
				to := ack
				to.dst = f.canary
				r.in("late ACK", ack, to)
				r.weight(0)
				r.in("SYN from the same port", start, toStable)
				if r.reason(bpf.Note, "reopened") != 1 {
					t.Fatal("the new connection is not counted as reopened")
				}
				got, other := r.tally(2), r.tally(1)
				if got.Closed != 1 || got.Forgotten != 1 || got.Reset != 0 || got.Timeout != 0 || got.Refused != c.want.Refused {
					t.Fatalf("the canary's connection is over, by one reason: %+v", got)
				}
				if other.Opened != 1 || other.Closed != 0 {
					t.Fatalf("stable has a new connection: %+v", other)
				}
			})
		})
	}
}

// TestRootResetWithoutConnection sends RSTs that belong to nothing: none of
// them may leave a flow behind.
func TestRootResetWithoutConnection(t *testing.T) {
	each(t, nil, func(t *testing.T, r *rig, f family) {
		for _, flags := range []byte{rst, rst | ack, rst | syn} {
			r.dropped("RST to the frontend", packet{src: f.client, dst: f.vip, flags: flags, seq: isn, ack: serverISN})
			answer := packet{src: f.stable, dst: f.client, flags: flags, seq: serverISN, ack: isn}
			r.out("RST of a backend", answer, answer)
		}
		var key bpf.FlowKey
		var flow bpf.Flow
		if r.Flows.Iterate().Next(&key, &flow) {
			t.Fatalf("a RST made the flow %+v", key)
		}
		r.open(f.client, f.vip, f.stable)
	})
}
