package daemon

import (
	"errors"
	"time"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/streams"
)

const (
	// sweepEvery is how often connections that are over are looked for,
	sweepEvery = 10 * time.Second
	// and lookEvery how often requests that wait: those that did already the
	// last time are told, since whether one waits for too long the kernel says.
	lookEvery = time.Second
)

// hearing is what reads HTTP/2 while the daemon runs.
type hearing struct {
	*listener
	pieces *bpf.Pieces
	done   chan struct{}
	swept  time.Time
	looked time.Time
}

// hear begins to read what the kernel hands over, which may have waited there
// since the last daemon.
func (d *daemon) hear() (*hearing, error) {
	pieces, err := bpf.NewPieces(d.loader.Map("pieces"))
	if err != nil {
		return nil, err
	}
	complain := func(err error) {
		d.once("hearing", err, func() { d.events.warn("daemon", "AnswersUncounted", err.Error()) })
	}
	h := &hearing{
		listener: newListener(pieces, &kernelTeller{program: d.loader.Hearer()}, streams.Limits{}, complain),
		pieces:   pieces, done: make(chan struct{}),
	}
	if err := metrics.NewListening(d.registry, h.listening); err != nil {
		return nil, errors.Join(err, pieces.Close())
	}
	go func() {
		defer close(h.done)
		if err := h.run(); err != nil {
			complain(err)
		}
	}()
	return h, nil
}

// listening is what metrics show of it.
func (h *hearing) listening() metrics.Listening {
	s, untold := h.stats()
	return metrics.Listening{
		Connections: s.Conns, Waiting: s.Waiting, Bytes: s.Bytes,
		Gaps: s.Gaps, Malformed: s.Errors, Crowded: s.Evicted + s.Overfull, Untold: untold,
	}
}

func (h *hearing) close() error {
	err := h.pieces.Close()
	<-h.done
	return err
}

// connState says whether a connection is over, by the flow in its slot.
func connState(c streams.Conn, f bpf.Flow) streams.State {
	const bothFINs = bpf.FlowFinClient | bpf.FlowFinServer
	switch {
	case f.OpenedNs != c.OpenedNS:
		return streams.Over
	case f.Flags&bpf.FlowClosed == 0:
		return streams.Open
	case f.Flags&bothFINs == bothFINs && f.Flags&bpf.FlowServerFirst == 0:
		return streams.Left
	}
	return streams.Over
}

// followWaits lets the listener tell who waits, now and then.
func (d *daemon) followWaits(now time.Time) {
	if now.Sub(d.hearing.looked) < lookEvery {
		return
	}
	d.hearing.looked = now
	d.hearing.look(uint64(bpf.Now()) - uint64(lookEvery))
}

// forgetConnections lets the listener forget what is over, now and then.
func (d *daemon) forgetConnections(now time.Time) {
	if now.Sub(d.hearing.swept) < sweepEvery {
		return
	}
	d.hearing.swept = now
	var errs []error
	flows := d.loader.Map("flows")
	d.hearing.sweep(func(c streams.Conn) streams.State {
		var s bpf.Slot
		if err := flows.Lookup(c.Slot, &s); err != nil {
			errs = append(errs, err)
			return streams.Open
		}
		return connState(c, s.Flow)
	}, uint64(bpf.Now()))
	if err := errors.Join(errs...); err != nil {
		d.once("sweep", err, func() { d.events.warn("daemon", "SweepFailed", err.Error()) })
	}
}
