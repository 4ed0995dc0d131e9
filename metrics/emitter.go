package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"siskin.dev/siskin/bpf"
)

// emitter names the numbers of one reading.
type emitter struct {
	descs *descs
	out   chan<- prometheus.Metric
}

func (e emitter) counter(d *prometheus.Desc, n uint64, labels ...string) {
	e.send(d, prometheus.CounterValue, float64(n), labels)
}

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.send(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) send(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.out <- m
}

func (e emitter) version(k versionKey, r *versionRow) {
	e.out <- newHistogram(e.descs.connect, &r.latency.Connect, k.service, k.version)
	e.out <- newHistogram(e.descs.response, &r.latency.Response, k.service, k.version)
	if r.live {
		e.gauge(e.descs.weight, r.asked, k.service, k.version)
	}
	if r.shared {
		e.gauge(e.descs.share, r.share, k.service, k.version)
	}
}

func (e emitter) backend(k backendKey, r *backendRow) {
	t, d, labels := r.tally, e.descs, []string{k.service, k.version, k.address}
	with := func(label string) []string { return append(slices.Clone(labels), label) }
	e.counter(d.connections, t.Opened, labels...)
	e.counter(d.established, t.Established, labels...)
	e.gauge(d.active, float64(Active(t)), labels...)
	e.counter(d.errors, t.Refused, with("refused")...)
	e.counter(d.errors, t.Timeout, with("timeout")...)
	e.counter(d.errors, t.Reset, with("reset")...)
	e.counter(d.errors, t.Unreachable, with("unreachable")...)
	e.counter(d.errors, t.Tls, with("tls")...)
	for way, direction := range [2]string{"in", "out"} {
		e.counter(d.bytes, t.Bytes[way], with(direction)...)
		e.counter(d.packets, t.Packets[way], with(direction)...)
		e.counter(d.retransmits, t.Retransmits[way], with(direction)...)
	}
	e.requests(r, labels)
	if !r.live {
		return
	}
	e.gauge(d.up, truth(r.up), labels...)
}

func (e emitter) requests(r *backendRow, labels []string) {
	if !r.spoken.any() {
		return
	}
	code := func(n uint64, code string) { e.counter(e.descs.requests, n, append(slices.Clone(labels), code)...) }
	for _, c := range codes() {
		if r.spoken.has(c.kind) {
			code(r.answers.Of[c.answer], c.name)
		}
	}
	code(Unparsed(&r.answers), "unparsed")
	e.counter(e.descs.lost, r.answers.Of[bpf.AnswerLost], labels...)
	if r.spoken.has(inTLS) {
		e.counter(e.descs.tls, r.answers.Of[bpf.AnswerTLS], labels...)
	}
}

func (e emitter) reasons(snap Snapshot) {
	kinds := map[bpf.ReasonKind]*prometheus.Desc{
		bpf.Drop: e.descs.drops, bpf.Pass: e.descs.passes, bpf.Note: e.descs.special,
	}
	for _, r := range bpf.Reasons() {
		e.counter(kinds[r.Kind], snap.Reasons[r.Index], r.Name)
	}
}

func (e emitter) flowTable(snap Snapshot) {
	t := snap.FlowTable
	e.gauge(e.descs.entries, float64(t.Entries))
	e.gauge(e.descs.capacity, float64(t.Capacity))
	e.gauge(e.descs.unproven, float64(t.Handshakes), "tcp")
	e.gauge(e.descs.unproven, float64(t.Datagrams), "udp")
	e.counter(e.descs.agings, t.Ticks)
	e.counter(e.descs.insertFailures, insertFailures(snap.Reasons))
	e.out <- newPortTries(e.descs.portTries, snap.PortTries)
	for name, bytes := range snap.MapBytes {
		e.gauge(e.descs.mapMemory, float64(bytes), name)
	}
}

// insertFailures counts the new connections that found no room, whether they
// were dropped or passed.
func insertFailures(counts map[bpf.Reason]uint64) uint64 {
	var n uint64
	for _, r := range bpf.Reasons() {
		if r.Name == "table_full" || r.Name == "quota" {
			n += counts[r.Index]
		}
	}
	return n
}
