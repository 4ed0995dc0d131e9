package streams

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newRand(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestConversations feeds several conversations at a time, interleaved, and
// wants of each exactly what was made.
func TestConversations(t *testing.T) {
	rng := newRand(t, 0)
	d := New(Limits{Conns: 4})
	total, failed := 0, 0
	for round := range 300 {
		talks := make([]*conversation, 1+rng.IntN(4))
		queues := make([][]Piece, len(talks))
		got := make([][]Answer, len(talks))
		for i := range talks {
			talks[i] = newConversation(rng, Conn{Slot: uint32(i), OpenedNS: uint64(round)})
			talks[i].converse(rng.IntN(150))
			queues[i] = talks[i].pieces
			got[i] = []Answer{}
		}
		for left := true; left; {
			left = false
			for i := range queues {
				n := min(len(queues[i]), rng.IntN(4))
				for _, p := range queues[i][:n] {
					for _, a := range d.Feed(p) {
						got[a.Conn.Slot] = append(got[a.Conn.Slot], a)
					}
				}
				queues[i] = queues[i][n:]
				left = left || len(queues[i]) > 0
			}
		}
		for i, c := range talks {
			want := c.answers()
			if diff := cmp.Diff(want, got[i]); diff != "" {
				t.Fatalf("round %d, connection %d (-want +got):\n%s", round, i, diff)
			}
			total += len(want)
			for _, a := range want {
				if a.Failed {
					failed++
				}
			}
		}
	}
	s := d.Stats()
	if s.Lost != 0 || s.Errors != 0 || s.Gaps != 0 || s.Dark != 0 || s.Conns != 0 || s.Waiting != 0 || int(s.Answers) != total {
		t.Errorf("stats %+v after %d answers", s, total)
	}
	t.Logf("%d answers, %d of them failed, %d aborted, %d pieces", total, failed, s.Aborted, s.Pieces)
}

// TestMissingPiece leaves each piece out in turn: what was told before the gap
// shows is right, and all else is lost.
func TestMissingPiece(t *testing.T) {
	rng := newRand(t, 0)
	lost, right := 0, 0
	for round := range 60 {
		c := newConversation(rng, Conn{Slot: 7})
		c.converse(10 + rng.IntN(40))
		want := append(c.answers(), c.resolve(c.late)...)
		for i := range want {
			want[i].OldestNS = 0 // of a request whose piece is missing
		}
		d := New(Limits{})
		for missing := range c.pieces {
			c.conn.OpenedNS++
			known := slices.Clone(want)
			n := 0
			for i, p := range c.pieces {
				p.Conn = c.conn
				if i == missing {
					continue
				}
				for _, a := range d.Feed(p) {
					if a.Conn != c.conn { // of the one before, whose end was missing
						continue
					}
					n++
					if a.Lost {
						if a.Status != 0 || a.GRPC != NoGRPC || a.Failed {
							t.Fatalf("round %d without piece %d: lost, and yet %+v", round, missing, a)
						}
						lost++
						continue
					}
					if known = c.without(t, known, a, c.pieces[missing]); known == nil {
						t.Fatalf("round %d without piece %d: %+v is none of\n%+v", round, missing, a, want)
					}
					right++
				}
			}
			if most := len(c.told) + len(c.aborted); n > most {
				t.Fatalf("round %d without piece %d: %d answers to %d requests", round, missing, n, most)
			}
		}
	}
	t.Logf("%d lost, %d right", lost, right)
}

// without takes an answer from those that may be told, nil where it is none of
// them. That a client gave up cannot be known where just that is missing, and
// nothing else came from it until the end.
func (c *conversation) without(t *testing.T, known []Answer, a Answer, missing Piece) []Answer {
	t.Helper()
	a.Conn, a.OldestNS = Conn{Slot: 7}, 0
	if i := slices.IndexFunc(known, func(k Answer) bool {
		k.Conn.OpenedNS = 0
		return k == a
	}); i >= 0 {
		return slices.Delete(known, i, i+1)
	}
	if missing.Way == ToServer && (a.Status == 0 || a.GRPC == grpcUnknown) {
		for _, s := range c.aborted {
			if c.ns(s.began) == a.BeganNS {
				return known
			}
		}
	}
	return nil
}
