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
	var outcomes [Lost + 1]uint64
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
			for _, a := range want {
				outcomes[a.Outcome]++
			}
		}
	}
	s := d.Stats()
	if s.Errors != 0 || s.Gaps != 0 || s.Dark != 0 || s.Conns != 0 || s.Waiting != 0 || s.Answers != outcomes {
		t.Errorf("stats %+v after %v answers", s, outcomes)
	}
	t.Logf("%v answers by outcome, %d pieces", s.Answers, s.Pieces)
}

// TestMissingPiece leaves each piece out in turn. Each status that is told is
// right; when the next piece of the server's shows that one is missing, all is
// lost.
func TestMissingPiece(t *testing.T) {
	rng := newRand(t, 0)
	lost, right := 0, 0
	for round := range 60 {
		c := newConversation(rng, Conn{Slot: 7})
		c.converse(10 + rng.IntN(40))
		d := New(Limits{})
		for missing := range c.pieces {
			c.conn.OpenedNS++
			known := append(c.answers(), c.resolve(c.late)...)
			shown, n := false, 0
			for i, p := range c.pieces {
				if i == missing {
					continue
				}
				shown = shown || i > missing && p.Way == ToClient && c.pieces[missing].Way == ToClient
				p.Conn = c.conn
				for _, a := range d.Feed(p) {
					if a.Conn != c.conn { // of the one before, whose end was missing
						continue
					}
					n++
					switch k := among(known, a); {
					case a.Outcome == Lost && a.Status == 0 && a.GRPC == NoGRPC:
						lost++
					case shown || k < 0:
						t.Fatalf("round %d without piece %d, shown %v: %+v is none of\n%+v", round, missing, shown, a, known)
					default:
						right++
						known = slices.Delete(known, k, k+1)
					}
				}
			}
			if n > len(c.told) {
				t.Fatalf("round %d without piece %d: %d answers to %d requests", round, missing, n, len(c.told))
			}
		}
	}
	t.Logf("%d lost, %d right", lost, right)
}

// among finds an answer among those that may be told. That a request was given
// up, reset or answered cannot be known while just that is missing: then there
// is another reason why it has no answer.
func among(known []Answer, a Answer) int {
	i := slices.Index(known, a)
	for _, is := range []bool{false, true} { // the others that began with the same piece come last
		if i < 0 && a.Outcome != Answered {
			i = slices.IndexFunc(known, func(k Answer) bool {
				return k.BeganNS == a.BeganNS && (k.Outcome == Answered) == is
			})
		}
	}
	return i
}
