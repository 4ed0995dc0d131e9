package streams

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// BenchmarkAnswer is the price of a request and its answer when a connection is
// warm. The frames of the answer come in two pieces, head and payload.
func BenchmarkAnswer(b *testing.B) {
	page := [][2]string{{":status", "200"}, {"server", "nginx/1.26.3"}, {"date", "Tue, 26 Nov 2024 14:53:00 GMT"},
		{"content-type", "text/html; charset=utf-8"}, {"content-length", "4711"}, {"etag", `"66f0a1b2-1267"`}}
	call := [][2]string{{":status", "200"}, {"content-type", "application/grpc"}}
	done := [][2]string{{"grpc-status", "0"}, {"grpc-message", ""}}
	for _, c := range []struct {
		name   string
		how    coding
		blocks [][][2]string
	}{
		{"indexed", indexed, [][][2]string{page}},
		{"literal", literal, [][][2]string{page}},
		{"inserted", inserted, [][][2]string{page}},
		{"grpc", indexed, [][][2]string{call, done}},
	} {
		for _, conns := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/conns=%d", c.name, conns), func(b *testing.B) {
				d := New(Limits{})
				answers := 0
				warm, warmed := encoded(c.blocks, c.how)
				var serials [2][]uint32
				for way := range serials {
					serials[way] = make([]uint32, conns)
				}
				feed := func(turn uint32, frames [][]byte) {
					slot := turn % uint32(conns)
					for i, f := range frames {
						binary.BigEndian.PutUint32(f[5:], turn/uint32(conns)*2+1)
						p := Piece{Conn: Conn{Slot: slot}, Way: Way(min(i, 1)), NS: uint64(turn)}
						for _, p.Data = range [][]byte{f[:frameHead], f[frameHead:]} {
							if len(p.Data) == 0 {
								continue
							}
							p.Serial = serials[p.Way][slot]
							serials[p.Way][slot]++
							answers += len(d.Feed(p))
						}
					}
				}
				turn := uint32(0)
				for ; turn < uint32(conns); turn++ {
					feed(turn, warm)
				}
				b.ReportAllocs()
				for b.Loop() {
					feed(turn, warmed)
					turn++
				}
				if s := d.Stats(); answers != int(turn) || s.Answers[Lost] > 0 {
					b.Fatalf("%d answers to %d requests: %+v", answers, turn, s)
				}
			})
		}
	}
}

// coding is what a server makes of fields that it sends with every answer.
type coding int

const (
	indexed  coding = iota // an entry of the table, as it should be
	literal                // never indexed
	inserted               // an entry that it will not use, as nginx does it
)

// encoded are a request and the frames of its answer, for a new connection and
// for one whose table is filled.
func encoded(blocks [][][2]string, how coding) (first, later [][]byte) {
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	for _, frames := range []*[][]byte{&first, &later} {
		*frames = append(*frames, asking(1))
		for i, fields := range blocks {
			out.Reset()
			if how == inserted {
				enc = hpack.NewEncoder(&out)
			}
			for _, f := range fields {
				enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: how == literal})
			}
			var b bytes.Buffer
			http2.NewFramer(&b, nil).WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: out.Bytes(), EndHeaders: true, EndStream: i > 0,
			})
			*frames = append(*frames, b.Bytes())
		}
	}
	return first, later
}
