package streams

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

func TestAnswers(t *testing.T) {
	w := newWire(t, New(Limits{}), 1)
	w.says(w.asks(1, 3, 5)) // 10
	w.says(w.asks(7, 5, 1)) // 20; the others are trailers
	w.says(w.answers(3, false, ":status", "100"))
	w.says(w.answers(3, false, ":status", "503"), ok(503, 10, 40))
	w.says(w.answers(1, false, ":status", "200", "content-type", "application/grpc"))
	w.says(w.answers(5, true, ":status", "404"), ok(404, 10, 60))
	w.says(w.answers(1, true, "grpc-status", "14"), call(Answered, 14, 10, 50))
	w.says(w.answers(7, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "0"),
		call(Answered, 0, 20, 80))
	w.says(w.answers(3, true, "grpc-status", "1")) // trailers of what was answered
	w.says(w.ends(ToClient))
}

func TestMalformedResponses(t *testing.T) {
	grpc := []string{":status", "200", "content-type", "application/grpc"}
	for _, c := range []struct {
		name string
		end  bool
		head []string
		want Answer
	}{
		{"no status", false, []string{"server", "x"}, none(Failed, 10, 20)},
		{"two statuses", false, []string{":status", "200", ":status", "200"}, none(Failed, 10, 20)},
		{"a long status", false, []string{":status", "2000"}, none(Failed, 10, 20)},
		{"a small status", false, []string{":status", "020"}, none(Failed, 10, 20)},
		{"a worded status", false, []string{":status", "2x0"}, none(Failed, 10, 20)},
		{"an end that is interim", true, []string{":status", "103"}, none(Failed, 10, 20)},
		{"a status that nobody has", false, []string{":status", "799"}, ok(799, 10, 20)},
		{"gRPC without its status", true, grpc, call(Failed, 2, 10, 20)},
		{"a worded grpc-status", true, append(grpc[:4:4], "grpc-status", "OK"), call(Answered, 2, 10, 20)},
		{"a huge grpc-status", true, append(grpc[:4:4], "grpc-status", "4294967296"), call(Answered, 2, 10, 20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, New(Limits{}), 1)
			w.says(w.asks(1))
			w.says(w.answers(1, c.end, c.head...), c.want)
		})
	}
}

// TestResets: what the codes say of a request, by RST_STREAM and by GOAWAY.
func TestResets(t *testing.T) {
	for code, is := range map[uint32]Outcome{
		codeNone: Failed, codeInternal: Failed, codeCancel: Failed, codeConnect: Failed, 0xe: Failed, 0xffffffff: Failed,
		codeRefused: Refused, codeHTTP11Required: Refused,
		codeProtocol: Faulted, codeFlowControl: Faulted, codeSettingsTimeout: Faulted, codeStreamClosed: Faulted,
		codeFrameSize: Faulted, codeCompression: Faulted, codeEnhanceYourCalm: Faulted, codeInadequateSecurity: Faulted,
	} {
		t.Run(fmt.Sprintf("code %#x", code), func(t *testing.T) {
			w := newWire(t, New(Limits{}), 1)
			w.says(w.asks(1, 3, 5)) // 10
			w.says(w.resets(ToClient, 1, code), none(is, 10, 20))
			w.says(w.answers(3, false, ":status", "200", "content-type", "application/grpc+proto"))
			if is == Failed {
				w.says(w.resets(ToClient, 3, code), call(Failed, 2, 10, 30))
			} else {
				w.says(w.resets(ToClient, 3, code), none(is, 10, 40))
			}
			w.says(w.answers(5, false, ":status", "200"), ok(200, 10, 50))
			w.says(w.resets(ToClient, 5, code))
			if s := w.d.Stats(); (s.CutShort == 1) != (is == Failed && code != codeNone) {
				t.Errorf("%d answers cut short", s.CutShort)
			}

			leaves, ends := is, Failed
			if code == codeNone {
				leaves = Refused
			}
			if is == Faulted {
				ends = Faulted
			}
			w.says(w.asks(7, 9)) // 70
			w.says(w.leaves(7, code), none(leaves, 70, 80))
			w.says(w.asks(11), none(leaves, 90, 90))
			w.says(w.ends(ToClient), none(ends, 70, 100))
		})
	}
}

func TestClientsAbort(t *testing.T) {
	w := newWire(t, New(Limits{}), 1)
	w.says(w.asks(1, 3, 5))
	w.says(w.resets(ToServer, 1, codeCancel), none(Aborted, 10, 20))
	w.says(w.answers(1, true, ":status", "500"))
	w.says(w.answers(3, false, ":status", "200", "content-type", "application/grpc"))
	w.says(w.resets(ToServer, 3, codeCancel), none(Aborted, 10, 50))
	w.says(w.ends(ToServer), none(Aborted, 10, 60))
	if s := w.d.Stats(); s.Answers != [Lost + 1]uint64{Aborted: 3} || s.Conns != 0 {
		t.Errorf("%+v", s)
	}
}

func TestUpgrade(t *testing.T) {
	w := newWire(t, New(Limits{}), 1)
	p := w.piece(ToServer, nil)
	p.Upgraded = true
	w.says(p)
	w.says(w.asks(3))
	w.says(w.answers(1, true, ":status", "204"), ok(204, 10, 30))
}

// TestLostWay: what can still be counted when a direction is lost.
func TestLostWay(t *testing.T) {
	t.Run("answers", func(t *testing.T) {
		w := newWire(t, New(Limits{}), 1)
		w.says(w.asks(1, 3)) // 10
		p := w.answers(1, true, ":status", "200")
		p.Lost = true // after what it has
		w.says(p, ok(200, 10, 20), lost(10, 20))
		w.says(w.asks(5), lost(30, 30))
		w.says(w.answers(5, true, ":status", "200"))
		w.says(w.asks(7, 9), lost(50, 50), lost(50, 50))
		w.says(w.ends(ToClient))
	})
	t.Run("requests", func(t *testing.T) {
		w := newWire(t, New(Limits{}), 1)
		w.says(w.asks(1, 3)) // 10
		p := w.piece(ToServer, nil)
		p.Lost = true
		w.says(p, lost(10, 20), lost(10, 20))
		w.says(w.answers(3, true, ":status", "200")) // counted
		w.says(w.answers(5, false, ":status", "103"))
		w.says(w.answers(5, false, ":status", "200"), lost(0, 50))
		w.says(w.answers(5, true, "grpc-status", "0"))
		w.says(w.answers(2, true, ":status", "200")) // pushed
		w.says(w.resets(ToClient, 7, codeInternal))
		w.serials[ToClient]++
		w.says(w.answers(7, false, ":status", "200"))
		w.says(w.asks(9))
		if s := w.d.Stats(); s.Gaps != 2 || s.Dark != 2 || s.CutShort != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("requests, as an answer shows", func(t *testing.T) {
		w := newWire(t, New(Limits{}), 1)
		w.says(w.asks(1)) // 10
		w.says(w.answers(3, false, ":status", "200"), lost(0, 20))
		w.serials[ToServer]++
		w.says(w.asks(5), lost(10, 30)) // that 1 was given up may be missing, too
		w.says(w.answers(5, false, ":status", "503"), ok(503, 30, 40))
	})
	t.Run("joined late", func(t *testing.T) {
		w := newWire(t, New(Limits{}), 1)
		w.serials = [2]uint32{5, 9}
		w.says(w.asks(11))
		w.says(w.answers(11, false, ":status", "200"), lost(10, 20))
		w.says(w.asks(13), lost(30, 30))
		w.says(w.answers(13, false, ":status", "200"))
		if s := w.d.Stats(); s.Gaps != 2 || s.Dark != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("serials come round", func(t *testing.T) {
		w := newWire(t, New(Limits{}), 1)
		w.says(w.asks(1))
		w.d.conns[1].serials[ToServer] = 0xffffffff
		w.serials[ToServer] = 0xffffffff
		w.says(w.asks(3))
		w.says(w.asks(5))
		w.says(w.answers(5, false, ":status", "200"), ok(200, 30, 40))
	})
}

func TestBrokenFrames(t *testing.T) {
	raw := func(kind, flags uint8, id uint32, payload ...byte) []byte {
		return frames(func(f *http2.Framer) {
			f.WriteRawFrame(http2.FrameType(kind), http2.Flags(flags), id, payload)
		})
	}
	begun := raw(frameHeaders, 0, 1, 0x88)
	for _, c := range []struct {
		name string
		way  Way
		data []byte
		want error
	}{
		{"what is no head", ToServer, raw(frameHeaders, flagEndHeaders, 3)[:8], errSize},
		{"more than a head", ToServer, raw(frameHeaders, flagEndHeaders, 3, 0x88), errSize},
		{"HEADERS on stream 0", ToClient, raw(frameHeaders, flagEndHeaders, 0), errStream},
		{"CONTINUATION of nothing", ToClient, raw(frameContinuation, flagEndHeaders, 1), errOrder},
		{"CONTINUATION of another", ToClient, append(begun[:len(begun):len(begun)], raw(frameContinuation, 4, 3)...), errOrder},
		{"a frame in a block", ToClient, append(begun[:len(begun):len(begun)], raw(0x6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)...), errOrder},
		{"a short RST_STREAM", ToClient, raw(frameReset, 0, 1, 0, 0, 0), errSize},
		{"a long RST_STREAM", ToClient, raw(frameReset, 0, 1, 0, 0, 0, 0, 0), errSize},
		{"RST_STREAM of stream 0", ToClient, raw(frameReset, 0, 0, 0, 0, 0, 0), errStream},
		{"a short GOAWAY", ToClient, raw(frameGoAway, 0, 0, 0, 0, 0, 0), errSize},
		{"GOAWAY of a stream", ToClient, raw(frameGoAway, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), errStream},
		{"padding without a length", ToClient, raw(frameHeaders, flagEndHeaders|flagPadded, 1), errSize},
		{"more padding than there is", ToClient, raw(frameHeaders, flagEndHeaders|flagPadded, 1, 2, 0x88), errSize},
		{"less priority than there must be", ToClient, raw(frameHeaders, flagEndHeaders|flagPriority, 1, 0, 0, 0, 0), errSize},
		{"a field that is not there", ToClient, raw(frameHeaders, flagEndHeaders, 1, 0x88, 0xbe), nil},
		{"a field that does not end", ToClient, raw(frameHeaders, flagEndHeaders, 1, 0x88, 0x40, 0x05, 'a'), nil},
		{"a table above the limit", ToClient, raw(frameHeaders, flagEndHeaders, 1, 0x3f, 0xe2, 0x7f, 0x88), nil},
		{"a table beyond all reason", ToClient, raw(frameHeaders, flagEndHeaders, 1, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x88), errFields},
		{"a long block", ToClient, raw(frameHeaders, flagEndHeaders, 1, make([]byte, 65537)...), errLong},
		{"a frame of a huge block", ToClient, raw(frameHeaders, flagEndHeaders, 1, make([]byte, 70000)...)[:9], errLong},
		{"a long block in parts", ToClient, append(raw(frameHeaders, 0, 1, make([]byte, 40000)...), raw(frameContinuation, 0, 1, make([]byte, 40000)...)...), errLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, New(Limits{}), 1)
			w.says(w.asks(1)) // 10
			w.says(w.piece(c.way, c.data), lost(10, 20))
			s := w.d.Stats()
			if s.Errors != 1 || s.LastError == nil || c.want != nil && !errors.Is(s.LastError, c.want) {
				t.Errorf("%d errors, the last is %v, not %v", s.Errors, s.LastError, c.want)
			}
		})
	}
	t.Run("no way", func(t *testing.T) {
		d := New(Limits{})
		if a := d.Feed(Piece{Way: 2}); len(a) > 0 || d.Stats().Errors != 1 {
			t.Error(a, d.Stats())
		}
	})
}

// TestNoQuestions: what a client may send that asks for nothing.
func TestNoQuestions(t *testing.T) {
	w := newWire(t, New(Limits{}), 1)
	w.says(w.asks(0, 2)) // a server's numbers
	w.says(w.resets(ToServer, 0, 0))
	w.says(w.piece(ToServer, frames(func(f *http2.Framer) { f.WriteContinuation(1, true, nil) })))
	w.says(w.ends(ToClient))
	if s := w.d.Stats(); s.Errors != 0 {
		t.Error(s.LastError)
	}
}

// TestWaits: who waits, for how long, and how much is known of it.
func TestWaits(t *testing.T) {
	d := New(Limits{})
	a, b, c := newWire(t, d, 1), newWire(t, d, 2), newWire(t, d, 3)
	a.says(a.asks(1)) // 10
	a.says(a.asks(3)) // 20
	b.says(b.asks(1, 3))
	b.says(b.answers(3, true, ":status", "200"), ok(200, 10, 20))
	c.says(c.asks(1))
	c.says(c.answers(1, false, ":status", "200", "content-type", "application/grpc")) // it is being answered
	waits := func(before uint64) []Wait {
		all := d.Waits(before)
		slices.SortFunc(all, func(a, b Wait) int { return cmp.Compare(a.Conn.Slot, b.Conn.Slot) })
		return all
	}
	want := []Wait{{a.conn, 10, [2]uint32{2, 0}}, {b.conn, 10, [2]uint32{2, 1}}}
	if got := waits(11); !slices.Equal(got, want) {
		t.Errorf("%+v wait, want %+v", got, want)
	}
	if got := waits(10); len(got) > 0 {
		t.Errorf("%+v wait since before", got)
	}
	a.says(a.answers(1, true, ":status", "200"), ok(200, 10, 30))
	b.says(b.resets(ToServer, 1, codeCancel), none(Aborted, 10, 30))
	if got, want := waits(100), []Wait{{a.conn, 20, [2]uint32{2, 1}}}; !slices.Equal(got, want) {
		t.Errorf("%+v wait, want %+v", got, want)
	}
}

func TestLimits(t *testing.T) {
	t.Run("connections", func(t *testing.T) {
		d := New(Limits{Conns: 2})
		a, b, c := newWire(t, d, 1), newWire(t, d, 2), newWire(t, d, 3)
		a.says(a.asks(1, 3))
		b.says(b.asks(1))
		b.says(b.piece(ToClient, nil))
		a.says(a.answers(3, true, ":status", "200"), ok(200, 10, 20))
		gone := lost(10, 10)
		gone.Conn = b.conn
		c.says(c.asks(1), gone)
		gone = lost(10, 30)
		gone.Conn = a.conn
		b.says(b.answers(1, true, ":status", "200"), gone)
		if s := d.Stats(); s.Evicted != 2 || s.Conns != 2 || s.Waiting != 1 || s.Gaps != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("sweep", func(t *testing.T) {
		d := New(Limits{})
		a, b, c := newWire(t, d, 1), newWire(t, d, 2), newWire(t, d, 3)
		a.says(a.asks(1))
		b.says(b.asks(1))
		c.says(c.asks(1))
		for w, want := range map[*wire]Answer{b: lost(10, 77), c: none(Aborted, 10, 77)} {
			want.Conn = w.conn
			got := d.Sweep(func(of Conn) State {
				switch {
				case of != w.conn:
					return Open
				case w == b:
					return Over
				}
				return Left
			}, 77)
			if d := diff.Diff([]Answer{want}, got); d != "" {
				t.Error(d)
			}
		}
		if n := d.Stats().Conns; n != 1 {
			t.Errorf("%d connections are known, one is open", n)
		}
		a.says(a.answers(1, true, ":status", "200"), ok(200, 10, 20))
	})
	t.Run("slots", func(t *testing.T) {
		d := New(Limits{})
		old, young := newWire(t, d, 1), newWire(t, d, 1)
		young.conn.OpenedNS = 2
		old.says(old.asks(1))
		gone := lost(10, 10)
		gone.Conn = old.conn
		young.says(young.asks(1), gone)
		old.says(old.answers(1, true, ":status", "500"))
		young.says(young.answers(1, true, ":status", "200"), ok(200, 10, 20))
		if s := d.Stats(); s.Stale != 1 || s.Conns != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("streams", func(t *testing.T) {
		w := newWire(t, New(Limits{StreamsPerConn: 2}), 1)
		w.says(w.asks(1, 3, 5), lost(10, 10))
		w.says(w.answers(5, true, ":status", "200"))
		w.says(w.answers(1, true, ":status", "200"), ok(200, 10, 30))
		w.says(w.asks(7))
		w.says(w.answers(7, true, ":status", "200"), ok(200, 40, 50))
		if s := w.d.Stats(); s.Overfull != 1 || s.Waiting != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("table", func(t *testing.T) {
		w := newWire(t, New(Limits{TableBytes: 1}), 1) // is 4,096
		w.encoder.SetMaxDynamicTableSize(4096)
		w.says(w.asks(1))
		w.says(w.answers(1, true, ":status", "200", "x-long", strings.Repeat("x", 4000)), ok(200, 10, 20))
		w.encoder.SetMaxDynamicTableSizeLimit(4097)
		w.encoder.SetMaxDynamicTableSize(4097)
		w.says(w.asks(3))
		w.says(w.answers(3, true, ":status", "200"), lost(30, 40))
	})
}

// TestTwoSizeUpdates: an encoder whose table was made small and large again says
// both, and keeps what fitted into the small one.
func TestTwoSizeUpdates(t *testing.T) {
	w := newWire(t, New(Limits{}), 1)
	w.says(w.asks(1, 3))
	w.says(w.answers(1, true, ":status", "503", "server", "nginx"), ok(503, 10, 20))
	w.encoder.SetMaxDynamicTableSize(100)
	w.encoder.SetMaxDynamicTableSize(4096)
	w.says(w.answers(3, true, ":status", "503"), ok(503, 10, 30))
}
