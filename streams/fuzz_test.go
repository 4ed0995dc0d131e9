package streams

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzFeed has strangers say anything, in any pieces, beside a conversation that
// must be told exactly as if they were not there.
//
// A piece of theirs is a byte (connection, direction, flags), a byte for how
// many pieces are missing before it, one for its length, and its data.
func FuzzFeed(f *testing.F) {
	for seed := range uint64(8) {
		c := newConversation(rand.New(rand.NewPCG(seed, 1)), Conn{})
		c.converse(30)
		f.Add(scribble(c.pieces))
	}
	victim := newConversation(rand.New(rand.NewPCG(42, 0)), Conn{Slot: 100})
	victim.converse(60)
	want := victim.answers()
	limits := Limits{Conns: 9, StreamsPerConn: 64}
	most := boundOf(limits.orDefault())

	f.Fuzz(func(t *testing.T, data []byte) {
		d := New(limits)
		var got []Answer
		strangers, serials := 0, map[Conn][2]uint32{}
		look := func(answers []Answer) {
			for _, a := range answers {
				if a.Conn == victim.conn {
					got = append(got, a)
				} else {
					strangers++
				}
				if a.Outcome == Lost && (a.Status != 0 || a.GRPC != NoGRPC) {
					t.Fatalf("lost, and yet %+v", a)
				}
			}
		}
		for i, p := range victim.pieces {
			look(d.Feed(p))
			for n := 0; n < 1+len(data)/len(victim.pieces)/4 && len(data) >= 3 && i > 0; n++ {
				var p Piece
				p, data = unscribble(data, serials)
				look(d.Feed(p))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("beside strangers (-want +got):\n%s", diff)
		}
		s := d.Stats()
		for _, n := range s.Answers {
			strangers -= int(n)
		}
		if strangers != -len(want) || s.Bytes > most {
			t.Fatalf("%d answers are not counted, %d bytes at most: %+v", strangers+len(want), most, s)
		}
	})
}

// boundOf is the memory that a decoder may take within these limits.
func boundOf(l Limits) uint64 {
	conn := 4096 + 4*32*uint64(l.StreamsPerConn) + 3*uint64(l.TableBytes) + 4*uint64(l.HeaderBytes+decoration)
	return uint64(l.Conns)*conn + uint64(l.HeaderBytes) + 1<<20
}

func scribble(pieces []Piece) []byte {
	var b bytes.Buffer
	for _, p := range pieces {
		for first := true; first || len(p.Data) > 0; first = false {
			n := min(len(p.Data), 255)
			b.Write([]byte{byte(p.Way) << 3, 0, byte(n)})
			b.Write(p.Data[:n])
			p.Data = p.Data[n:]
		}
	}
	return b.Bytes()
}

func unscribble(data []byte, serials map[Conn][2]uint32) (Piece, []byte) {
	what, gap, n := data[0], data[1], min(int(data[2]), len(data)-3)
	p := Piece{
		Conn:     Conn{Slot: uint32(what & 7), OpenedNS: uint64(what >> 7)},
		Way:      Way(what >> 3 & 1),
		Lost:     what>>4&3 == 3,
		End:      what>>5&3 == 3,
		Upgraded: what>>4&7 == 1,
		NS:       uint64(len(data)),
		Data:     data[3 : 3+n],
	}
	s := serials[p.Conn]
	if gap > 250 {
		s[p.Way] += uint32(gap)
	}
	p.Serial = s[p.Way]
	s[p.Way]++
	serials[p.Conn] = s
	return p, data[3+n:]
}
