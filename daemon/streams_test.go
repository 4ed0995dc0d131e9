package daemon

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/streams"
)

// queue is a source of pieces, and it is who is told: it notes how many answers
// came at a time.
type queue struct {
	pieces []bpf.Piece
	told   []streams.Answer
	waits  []streams.Wait
	turns  []int
	full   error // what Tell says
}

func (q *queue) Read() (bpf.Piece, error) {
	if len(q.pieces) == 0 {
		return bpf.Piece{}, ringbuf.ErrClosed
	}
	p := q.pieces[0]
	q.pieces = q.pieces[1:]
	return p, nil
}

// Waiting says that nothing does behind each hundredth piece.
func (q *queue) Waiting() int { return len(q.pieces) % 100 }

func (q *queue) Tell(all []streams.Answer) error {
	q.told = append(q.told, all...)
	q.turns = append(q.turns, len(all))
	return q.full
}

func (q *queue) TellWaits(all []streams.Wait) error {
	q.waits = append(q.waits, all...)
	q.turns = append(q.turns, len(all))
	return q.full
}

// talk puts n requests and their answers into the queue.
func (q *queue) talk(slot uint32, n int) {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	for i := range n {
		for way, field := range []byte{0x82, 0x88} { // GET; 200
			b.Reset()
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: []byte{field}, EndHeaders: true})
			q.pieces = append(q.pieces, bpf.Piece{
				Slot: slot, OpenedNS: 5, Backend: 9, Serial: uint32(i), NS: uint64(10*i + way), ToClient: way == 1,
				Data: bytes.Clone(b.Bytes()[:b.Len()-(1-way)]), // of the client's its head
			})
		}
	}
}

func TestListener(t *testing.T) {
	var complaints []error
	q := &queue{}
	l := newListener(q, q, streams.Limits{}, func(err error) { complaints = append(complaints, err) })
	q.talk(3, 200)
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	want := []int{50, 50, 50, 50} // where nothing waited
	if diff := cmp.Diff(want, q.turns); diff != "" {
		t.Errorf("answers at a time (-want +got):\n%s", diff)
	}
	for i, a := range q.told {
		want := streams.Answer{
			Conn:   streams.Conn{Slot: 3, Backend: 9, OpenedNS: 5},
			Status: 200, GRPC: streams.NoGRPC, BeganNS: uint64(10 * i), EndedNS: uint64(10*i + 1),
		}
		if a != want {
			t.Fatalf("answer %d is %+v, want %+v", i, a, want)
		}
	}

	q.turns, q.full = nil, errors.New("no")
	q.talk(4, 1)
	q.pieces = q.pieces[:1] // asked, not answered
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	l.sweep(func(c streams.Conn) streams.State {
		if c.Slot == 4 {
			return streams.Over
		}
		return streams.Open
	}, 100)
	if last := q.told[len(q.told)-1]; last.Outcome != streams.Lost || last.Conn.Slot != 4 || last.EndedNS != 100 {
		t.Errorf("%+v", last)
	}
	s, untold := l.stats()
	if untold != 1 || len(complaints) != 1 || s.Conns != 1 || s.Answers[streams.Answered] != 200 {
		t.Errorf("%d untold, %v, %+v", untold, complaints, s)
	}
}

// TestListenerTellsMuch: what one piece ends may be more than can be told at a time.
func TestListenerTellsMuch(t *testing.T) {
	q := &queue{}
	l := newListener(q, q, streams.Limits{}, func(err error) { t.Error(err) })
	q.talk(3, 150)
	var asked []bpf.Piece // all, and then the server is not heard any more
	for _, p := range q.pieces {
		if !p.ToClient {
			asked = append(asked, p)
		}
	}
	q.pieces = append(asked, bpf.Piece{Slot: 3, OpenedNS: 5, Backend: 9, NS: 1e6, ToClient: true, Lost: true})
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{bpf.HeardMost, bpf.HeardMost, 150 - 2*bpf.HeardMost}, q.turns); diff != "" {
		t.Errorf("answers at a time (-want +got):\n%s", diff)
	}
}

// TestListenerLooks: who waits is told as often as it is asked, in turns that can
// be told.
func TestListenerLooks(t *testing.T) {
	q := &queue{}
	l := newListener(q, q, streams.Limits{}, func(err error) { t.Error(err) })
	for slot := range uint32(100) {
		q.talk(slot, 1)
		q.pieces = q.pieces[:slot+1] // asked, not answered
	}
	q.pieces[0].NS = 7
	for i := range q.pieces[1:] {
		q.pieces[1+i].NS = 5
	}
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	l.look(7)
	if diff := cmp.Diff([]int{bpf.HeardMost, 99 - bpf.HeardMost}, q.turns); diff != "" {
		t.Errorf("told at a time (-want +got):\n%s", diff)
	}
	for _, w := range q.waits {
		if want := (streams.Wait{Conn: streams.Conn{Slot: w.Conn.Slot, Backend: 9, OpenedNS: 5}, BeganNS: 5, Heard: [2]uint32{1, 0}}); w != want {
			t.Fatalf("%+v waits, want %+v", w, want)
		}
	}
}

func TestHeardOf(t *testing.T) {
	conn := streams.Conn{Slot: 3, Backend: 9, OpenedNS: 5}
	for _, c := range []struct {
		is           streams.Outcome
		status, grpc int
		want         bpf.Heard
	}{
		{streams.Answered, 503, -1, bpf.Heard{Status: 503, Grpc: -1, BeganNs: 1}},
		{streams.Answered, 200, 14, bpf.Heard{Status: 200, Grpc: 14, BeganNs: 1}},
		{streams.Failed, 0, -1, bpf.Heard{Grpc: -1}},
		{streams.Failed, 200, 2, bpf.Heard{Status: 200, Grpc: 2, BeganNs: 1}},
		{streams.Refused, 0, -1, bpf.Heard{Grpc: -1, What: bpf.HeardLost}},
		{streams.Faulted, 0, -1, bpf.Heard{Status: 400, Grpc: -1}},
		{streams.Lost, 0, -1, bpf.Heard{Grpc: -1, What: bpf.HeardLost}},
	} {
		c.want.Slot, c.want.Backend, c.want.OpenedNs, c.want.EndedNs = 3, 9, 5, 2
		got := heardOf(streams.Answer{
			Conn: conn, Outcome: c.is, Status: c.status, GRPC: c.grpc, BeganNS: 1, EndedNS: 2,
		})
		if got != c.want {
			t.Errorf("%v %d %d is %+v, want %+v", c.is, c.status, c.grpc, got, c.want)
		}
	}
}

func TestConnState(t *testing.T) {
	const fins = bpf.FlowFinClient | bpf.FlowFinServer
	for _, c := range []struct {
		what   string
		opened uint64
		flags  uint32
		want   streams.State
	}{
		{"it is open", 5, bpf.FlowFinClient, streams.Open},
		{"the client closed first", 5, fins | bpf.FlowClosed, streams.Left},
		{"the server closed first", 5, fins | bpf.FlowServerFirst | bpf.FlowClosed, streams.Over},
		{"it was reset", 5, bpf.FlowFinClient | bpf.FlowClosed, streams.Over},
		{"another one has its slot", 6, 0, streams.Over},
	} {
		if got := connState(streams.Conn{OpenedNS: 5}, bpf.Flow{OpenedNs: c.opened, Flags: c.flags}); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
}
