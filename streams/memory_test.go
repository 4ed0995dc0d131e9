package streams

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// TestMemory holds what Stats reports against the heap, with connections that
// take as much as they can.
func TestMemory(t *testing.T) {
	for _, c := range []struct {
		name string
		fill func(w *wire)
	}{
		{"silent", func(w *wire) { w.says(w.piece(ToServer, nil)) }},
		{"short entries", func(w *wire) {
			for range 4 { // each of a block's fields is an entry of 32 bytes by RFC 7541
				w.says(w.piece(ToClient, block(strings.Repeat("\x40\x00\x00", 1000))))
			}
		}},
		{"small entries", func(w *wire) {
			for range 4 {
				w.says(w.piece(ToClient, block(strings.Repeat("\x40\x01a\x01b", 1000))))
			}
		}},
		{"long entries", func(w *wire) {
			for range 4 {
				w.says(w.piece(ToClient, block("\x40\x01a\x7f\x81\x1e"+strings.Repeat("x", 3968))))
			}
		}},
		{"a table of 16 KiB, once", func(w *wire) {
			w.says(w.piece(ToClient, block("\x3f\xe1\x7f"+strings.Repeat("\x40\x00\x00", 1000))))
			w.says(w.piece(ToClient, block("\x20")))
		}},
		{"streams", func(w *wire) {
			var ids []uint32
			for id := uint32(1); id < 200; id += 2 {
				ids = append(ids, id)
			}
			w.says(w.asks(ids...))
		}},
		{"blocks that do not end", func(w *wire) {
			w.says(w.piece(ToClient, frames(func(f *http2.Framer) {
				f.WriteRawFrame(frameHeaders, 0, 1, make([]byte, 5000))
				f.WriteRawFrame(frameContinuation, 0, 1, make([]byte, 5000))
			})))
			w.says(w.piece(ToClient, frames(func(f *http2.Framer) {
				f.WriteRawFrame(frameContinuation, 0, 1, make([]byte, 5000))
			})[:4000]))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 200
			wires := make([]*wire, n)
			d := New(Limits{})
			for i := range wires {
				wires[i] = newWire(t, d, uint32(i))
				wires[i].encoder = nil
			}
			before := heap()
			for _, w := range wires {
				c.fill(w)
			}
			took := heap() - before
			said := d.Stats().Bytes - 65536 // the scratch, which was there before
			t.Logf("%d bytes each, %d said", took/n, said/n)
			if int64(took) > int64(said) {
				t.Errorf("%d connections took %d bytes, and the decoder says at most %d", n, took, said)
			}
			if s := d.Stats(); s.Errors > 0 {
				t.Error(s.LastError)
			}
			if bound := boundOf(d.limits); said > bound {
				t.Errorf("%d bytes, above the bound of %d", said, bound)
			}
			for _, w := range wires {
				p := w.ends(ToServer)
				d.Feed(p)
			}
			if s := d.Stats(); s.Conns != 0 || s.Waiting != 0 || len(d.spare) != n {
				t.Errorf("%+v and %d spare when all are over", s, len(d.spare))
			}
			runtime.KeepAlive(d)
		})
	}
}

func block(fields string) []byte {
	return frames(func(f *http2.Framer) {
		f.WriteRawFrame(frameHeaders, flagEndHeaders, 2, []byte(fields))
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestRequestsRoom: a stream that stays open for long, beside many that come and
// go, takes no room for those.
func TestRequestsRoom(t *testing.T) {
	var q requests
	q.add(1, 5)
	for id := uint32(3); id < 100000; id += 2 {
		q.add(id, uint64(id))
		if q.oldestNS() != 5 {
			t.Fatal(fmt.Sprint("oldest at ", id, ": ", q.oldestNS()))
		}
		q.settle(q.find(id))
	}
	if cap(q.list) > 8 || q.open != 1 || q.find(1) == nil || q.find(99999) != nil {
		t.Errorf("room for %d, %d open", cap(q.list), q.open)
	}
}
