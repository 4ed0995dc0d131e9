package metrics

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Listening is what the daemon's reader of HTTP/2 holds, and what it did since
// the daemon began.
type Listening struct {
	Connections int
	Waiting     int    // requests without an end, on all of them
	Bytes       uint64 // of memory, at most

	Gaps      uint64 // pieces were missing, or the kernel lost the thread
	Malformed uint64 // directions that were no HTTP/2, or above a limit
	Crowded   uint64 // connections and requests above what may be known at a time
	Untold    uint64 // answers that the kernel would not take
}

// listening asks once a scrape.
type listening struct {
	read                        func() Listening
	connections, waiting, bytes *prometheus.Desc
	losses, untold              *prometheus.Desc
}

// NewListening registers what read returns.
func NewListening(reg prometheus.Registerer, read func() Listening) error {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("siskin_http2_"+name, help, labels, nil)
	}
	l := &listening{
		read:        read,
		connections: desc("connections", "HTTP/2 connections that the daemon reads."),
		waiting:     desc("waiting_requests", "Requests on HTTP/2 connections that have no answer yet."),
		bytes:       desc("memory_bytes", "Memory that reading HTTP/2 takes, at most."),
		losses: desc("losses_total", "Times when HTTP/2 could not be followed, by reason: a gap in what the kernel handed over, what is no HTTP/2 or too large, or more "+
			"connections or streams than may be known at a time. What was lost by them is in siskin_requests_lost_total.", "reason"),
		untold: desc("untold_answers_total", "Answers over HTTP/2 that the kernel could not be told, so that they are not counted."),
	}
	if err := reg.Register(l); err != nil {
		return fmt.Errorf("register the metrics of HTTP/2: %w", err)
	}
	return nil
}

func (l *listening) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{l.connections, l.waiting, l.bytes, l.losses, l.untold} {
		out <- d
	}
}

func (l *listening) Collect(out chan<- prometheus.Metric) {
	now, e := l.read(), emitter{out: out}
	e.gauge(l.connections, float64(now.Connections))
	e.gauge(l.waiting, float64(now.Waiting))
	e.gauge(l.bytes, float64(now.Bytes))
	e.counter(l.losses, now.Gaps, "gap")
	e.counter(l.losses, now.Malformed, "malformed")
	e.counter(l.losses, now.Crowded, "crowded")
	e.counter(l.untold, now.Untold)
}
