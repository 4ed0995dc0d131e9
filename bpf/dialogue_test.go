package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
)

// A dialogue is one connection whose frontend's requests are looked for.
type dialogue struct {
	*watched
	from, server netip.AddrPort
	sent         [2]uint32 // bytes of each side
	how          delivery
}

// A delivery is how a side's bytes come by.
type delivery struct {
	name string
	// cut says where what a side says at a time is cut into segments.
	cut func(n int) []int
	// twice: each segment comes by again.
	twice bool
	// shuffle: their order is by chance.
	shuffle *rand.Rand
}

// plain delivers what is said in one piece.
func plain() delivery { return deliveries(nil)[0] }

func deliveries(rng *rand.Rand) []delivery {
	return []delivery{
		{name: "whole", cut: func(int) []int { return nil }},
		{name: "again", cut: func(n int) []int { return []int{n / 2} }, twice: true},
		{name: "bytes", cut: func(n int) []int {
			all := make([]int, n)
			for i := range all {
				all[i] = i
			}
			return all
		}},
		{name: "anyhow", cut: func(n int) []int {
			all := make([]int, rng.IntN(6))
			for i := range all {
				all[i] = rng.IntN(n)
			}
			slices.Sort(all)
			return all
		}, twice: true},
		{name: "shuffled", cut: func(n int) []int {
			all := make([]int, rng.IntN(8))
			for i := range all {
				all[i] = rng.IntN(n)
			}
			slices.Sort(all)
			return all
		}, twice: true, shuffle: rng},
	}
}

const (
	asking    = 0
	answering = 1
)

// segment sends bytes of a side that begin at `at`.
func (d *dialogue) segment(side int, at uint32, payload string) {
	d.t.Helper()
	p := packet{flags: ack, payload: []byte(payload)}
	if side == asking {
		p.src, p.dst = d.from, d.vip
		p.seq, p.ack = isn+1+at, serverISN+1+d.sent[answering]
		d.steered(d.program, p)
		return
	}
	p.src, p.dst = d.server, d.from
	p.seq, p.ack = serverISN+1+at, isn+1+d.sent[asking]
	d.steered(d.SiskinEgress, p)
}

// steered runs a packet that must go on.
func (d *dialogue) steered(program *ebpf.Program, p packet) {
	d.t.Helper()
	pass := uint32(next)
	if program != d.SiskinIngress && program != d.SiskinEgress {
		pass = xdpPass
	}
	if verdict, _ := d.run(program, p.frame()); verdict != pass {
		d.t.Fatalf("verdict %d", int32(verdict))
	}
}

// say lets a side say something, as it is delivered.
func (d *dialogue) say(side int, text string) {
	d.t.Helper()
	type piece struct {
		at   uint32
		text string
	}
	var pieces []piece
	begin := 0
	for _, end := range append(d.how.cut(len(text)), len(text)) {
		for begin < end {
			n := min(end-begin, 1400)
			pieces = append(pieces, piece{d.sent[side] + uint32(begin), text[begin : begin+n]})
			begin += n
		}
	}
	if d.how.twice {
		pieces = slices.Concat(slices.Collect(func(yield func([]piece) bool) {
			for _, p := range pieces {
				yield([]piece{p, p})
			}
		})...)
	}
	if d.how.shuffle != nil { // no more come too early than can be kept
		for some := range slices.Chunk(pieces, 8) {
			d.how.shuffle.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		}
	}
	for _, p := range pieces {
		d.segment(side, p.at, p.text)
	}
	d.sent[side] += uint32(len(text))
}

// hold opens a connection for a dialogue, to whom the weights say.
func hold(w *watched, how delivery) *dialogue {
	w.t.Helper()
	d := &dialogue{watched: w, from: w.newcomer(), server: w.stable, how: how}
	d.open()
	return d
}

// open shakes hands.
func (d *dialogue) open() {
	d.t.Helper()
	if f := d.connect(d.from); f.Version != 0 {
		d.server = d.canary
	}
	d.shaken()
}

// shaken ends the handshake that a SYN began.
func (d *dialogue) shaken() {
	d.t.Helper()
	w := d.watched
	w.reply(packet{src: d.server, dst: d.from, flags: syn | ack, seq: serverISN, ack: isn + 1})
	w.ask(packet{src: d.from, dst: w.vip, flags: ack, seq: isn + 1, ack: serverISN + 1})
}

// readRequests lets the rig's frontend look for requests.
func (w *watched) readRequests(flags uint32) {
	w.t.Helper()
	w.frontend(1, w.vip, tcp, flags, 1, 2)
}

// answersOf sums what a backend's requests came to.
func (r *rig) answersOf(backend uint32) (sum bpf.Answers) {
	r.t.Helper()
	var all []bpf.Answers
	if err := r.Requests.Lookup(backend, &all); err != nil {
		r.t.Fatal(err)
	}
	for _, c := range all {
		for i, n := range c.Of {
			sum.Of[i] += n
		}
	}
	return sum
}

// responses is how many response times a version has.
func (r *rig) responses(version uint32) (n uint64) {
	r.t.Helper()
	var all []bpf.Latency
	if err := r.Latencies.Lookup(version, &all); err != nil {
		r.t.Fatal(err)
	}
	for _, l := range all {
		for _, b := range l.Response.Bucket {
			n += b
		}
	}
	return n
}

// record is one of TLS.
func record(kind byte, body string) string {
	return string([]byte{kind, 3, 3, byte(len(body) >> 8), byte(len(body))}) + body
}

type line struct {
	side int
	text string
}

func asks(text ...string) line    { return line{asking, strings.Join(text, "")} }
func answers(text ...string) line { return line{answering, strings.Join(text, "")} }

// crlf writes a head: lines, and the empty one.
func crlf(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

func httpGET(extra ...string) string {
	return crlf(append([]string{"GET /some/path?with=query HTTP/1.1", "Host: checkout.example"}, extra...)...)
}

func httpOK(body string) string {
	return crlf("HTTP/1.1 200 OK", "Server: any", fmt.Sprintf("Content-Length: %d", len(body))) + body
}

func status(code int, extra ...string) string {
	return crlf(append([]string{fmt.Sprintf("HTTP/1.1 %d Some Reason", code)}, extra...)...)
}
