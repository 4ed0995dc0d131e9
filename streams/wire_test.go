package streams

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is one connection, written by hand. A piece comes by each 10 ns.
type wire struct {
	t       *testing.T
	d       *Decoder
	conn    Conn
	ns      uint64
	serials [2]uint32
	block   bytes.Buffer
	encoder *hpack.Encoder // the server's
}

func newWire(t *testing.T, d *Decoder, slot uint32) *wire {
	w := &wire{t: t, d: d, conn: Conn{Slot: slot, OpenedNS: 1}}
	w.encoder = hpack.NewEncoder(&w.block)
	return w
}

func (w *wire) piece(way Way, data []byte) Piece {
	w.ns += 10
	p := Piece{Conn: w.conn, Way: way, Serial: w.serials[way], NS: w.ns, Data: data}
	w.serials[way]++
	return p
}

// says feeds a Piece, or several, and wants these answers of it.
func (w *wire) says(said any, want ...Answer) {
	w.t.Helper()
	all, several := said.([]Piece)
	if !several {
		all = []Piece{said.(Piece)}
	}
	for i := range want {
		if want[i].Conn == (Conn{}) {
			want[i].Conn = w.conn
		}
	}
	var got []Answer
	for _, p := range all {
		got = append(got, w.d.Feed(p)...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("at %d (-want +got):\n%s", w.ns, diff)
	}
}

// asks opens streams, at one time.
func (w *wire) asks(ids ...uint32) (all []Piece) {
	w.ns += 10
	for _, id := range ids {
		w.ns -= 10
		all = append(all, w.piece(ToServer, asking(id)))
	}
	return all
}

// asking is the head of a HEADERS.
func asking(id uint32) []byte {
	return frames(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x82}, EndHeaders: true})
	})[:frameHead]
}

// answers is a HEADERS of the server.
func (w *wire) answers(id uint32, end bool, pairs ...string) Piece {
	return w.piece(ToClient, frames(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: id, BlockFragment: w.fields(pairs...), EndHeaders: true, EndStream: end,
		})
	}))
}

func (w *wire) fields(pairs ...string) []byte {
	w.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		w.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(w.block.Bytes())
}

func (w *wire) resets(way Way, id, code uint32) Piece {
	data := frames(func(f *http2.Framer) { f.WriteRSTStream(id, http2.ErrCode(code)) })
	if way == ToServer {
		data = data[:frameHead]
	}
	return w.piece(way, data)
}

func (w *wire) leaves(last, code uint32) Piece {
	return w.piece(ToClient, frames(func(f *http2.Framer) { f.WriteGoAway(last, http2.ErrCode(code), nil) }))
}

func (w *wire) ends(by Way) Piece {
	p := w.piece(by, nil)
	p.End = true
	return p
}

func frames(write func(*http2.Framer)) []byte {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	f.AllowIllegalWrites = true
	write(f)
	return b.Bytes()
}

// Answers, in short.
func ok(status int, began, ended uint64) Answer {
	return Answer{Status: status, GRPC: NoGRPC, BeganNS: began, EndedNS: ended}
}

func lost(began, ended uint64) Answer {
	return none(Lost, began, ended)
}

func none(is Outcome, began, ended uint64) Answer {
	return Answer{Outcome: is, GRPC: NoGRPC, BeganNS: began, EndedNS: ended}
}

func call(is Outcome, code int, began, ended uint64) Answer {
	return Answer{Outcome: is, Status: 200, GRPC: code, BeganNS: began, EndedNS: ended}
}
