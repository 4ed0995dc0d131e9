package daemon

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/streams"
)

// pieceSource is where HTTP/2 comes from: bpf.Pieces.
type pieceSource interface {
	Read() (bpf.Piece, error)
	Waiting() int
}

// Teller is told how requests ended, and which of them wait. What it is told is
// good until it returns.
type Teller interface {
	Tell([]streams.Answer) error
	TellWaits([]streams.Wait) error
}

// listener reads the HTTP/2 that the kernel hands over, and tells the answers.
type listener struct {
	source   pieceSource
	teller   Teller
	complain func(error) // what could not be told

	mu      sync.Mutex // the fields below
	decoder *streams.Decoder
	batch   []streams.Answer
	untold  uint64 // answers that the teller would not take
}

func newListener(source pieceSource, teller Teller, limits streams.Limits, complain func(error)) *listener {
	return &listener{
		source: source, teller: teller, complain: complain,
		decoder: streams.New(limits), batch: make([]streams.Answer, 0, bpf.HeardMost),
	}
}

// run reads until the source is closed. Answers are told as soon as nothing
// waits to be read, or when there are as many as can be told at a time: a quiet
// connection's at once, a busy host's together.
func (l *listener) run() error {
	for {
		p, err := l.source.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("listen to HTTP/2: %w", err)
		}
		l.mu.Lock()
		l.add(l.decoder.Feed(pieceOf(p)))
		if l.source.Waiting() == 0 {
			l.tell()
		}
		l.mu.Unlock()
	}
}

// sweep forgets connections that are over, for where their end was not heard.
func (l *listener) sweep(state func(streams.Conn) streams.State, nowNS uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(l.decoder.Sweep(state, nowNS))
	l.tell()
}

// look tells which requests waited already at a time.
func (l *listener) look(before uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for waits := range slices.Chunk(l.decoder.Waits(before), bpf.HeardMost) {
		if err := l.teller.TellWaits(waits); err != nil {
			l.complain(err)
		}
	}
}

// stats says what was read, and how many answers could not be told.
func (l *listener) stats() (s streams.Stats, untold uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.decoder.Stats(), l.untold
}

func (l *listener) add(answers []streams.Answer) {
	for _, a := range answers {
		l.batch = append(l.batch, a)
		if len(l.batch) == cap(l.batch) {
			l.tell()
		}
	}
}

// tell empties the batch. What is refused is not told again: the next answers
// must not wait for it, nor come after it twice.
func (l *listener) tell() {
	if len(l.batch) == 0 {
		return
	}
	if err := l.teller.Tell(l.batch); err != nil {
		l.untold += uint64(len(l.batch))
		l.complain(err)
	}
	l.batch = l.batch[:0]
}

func pieceOf(p bpf.Piece) streams.Piece {
	way := streams.ToServer
	if p.ToClient {
		way = streams.ToClient
	}
	return streams.Piece{
		Conn: streams.Conn{Slot: p.Slot, Backend: p.Backend, OpenedNS: p.OpenedNS},
		Way:  way, Serial: p.Serial, NS: p.NS, Lost: p.Lost, Upgraded: p.Upgraded, End: p.Over, Data: p.Data,
	}
}

// kernelTeller has the kernel count answers beside its own.
type kernelTeller struct {
	program *ebpf.Program // siskin_heard
	heard   []bpf.Heard
}

var _ Teller = (*kernelTeller)(nil)

func (k *kernelTeller) Tell(answers []streams.Answer) error {
	k.heard = k.heard[:0]
	for _, a := range answers {
		if a.Outcome != streams.Aborted { // what a client gave up has none
			k.heard = append(k.heard, heardOf(a))
		}
	}
	return bpf.Tell(k.program, k.heard)
}

func (k *kernelTeller) TellWaits(waits []streams.Wait) error {
	k.heard = k.heard[:0]
	for _, w := range waits {
		k.heard = append(k.heard, bpf.Heard{
			OpenedNs: w.Conn.OpenedNS, Slot: w.Conn.Slot, Backend: w.Conn.Backend,
			BeganNs: w.BeganNS, Heard: w.Heard, What: bpf.HeardWaiting,
		})
	}
	return bpf.Tell(k.program, k.heard)
}

// heardOf is an answer as the kernel knows them.
// A request that the server refused is neither good nor bad, and too many of
// them are no reason to go on: that is what lost says. One that the server ended
// for the client's fault is HTTP/2's "400 Bad Request".
func heardOf(a streams.Answer) bpf.Heard {
	h := bpf.Heard{
		OpenedNs: a.Conn.OpenedNS, Slot: a.Conn.Slot, Backend: a.Conn.Backend,
		BeganNs: a.BeganNS, EndedNs: a.EndedNS,
		Status: uint16(a.Status), Grpc: int16(a.GRPC),
	}
	switch a.Outcome {
	case streams.Faulted:
		h.Status = 400
	case streams.Refused, streams.Lost:
		h.What = bpf.HeardLost
	}
	if a.Status == 0 {
		h.BeganNs = 0 // there was no response to measure
	}
	return h
}
