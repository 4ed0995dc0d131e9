package bpf_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"siskin.dev/siskin/bpf"
)

// want are counts by how requests ended.
type want map[bpf.Answer]uint64

type http1Case struct {
	what    string
	said    []line
	want    want
	untimed uint64 // answers without
	unread  bool   // the connection is not read any more at the end
	tls     uint64 // handshakes that failed
	only    string // delivery
	ordered bool   // nothing is said of what is no HTTP and comes in disorder
}

func http1Cases() []http1Case {
	big := strings.Repeat("x", 5000)
	chunks := "4\r\nabcd\r\n1f;ext=1\r\n" + strings.Repeat("y", 0x1f) + "\r\n0\r\n\r\n"
	chunked := status(200, "Transfer-Encoding: chunked") + chunks
	return []http1Case{
		{what: "one request", said: []line{asks(httpGET()), answers(httpOK("hello"))}, want: want{bpf.Answer2xx: 1}},
		{what: "keep-alive", said: []line{
			asks(httpGET()), answers(httpOK("hello")), asks(httpGET()), answers(status(404, "content-length:0")),
			asks(httpGET()), answers(status(503, "CONTENT-LENGTH:   7"), "trouble"), asks(httpGET()), answers(status(302, "Content-Length: 0")),
		}, want: want{bpf.Answer2xx: 1, bpf.Answer3xx: 1, bpf.Answer4xx: 1, bpf.Answer5xx: 1}},
		{what: "long bodies", said: []line{
			asks(crlf("POST / HTTP/1.1", "Content-Length: 5000"), big), answers(httpOK(big)), asks(httpGET()), answers(httpOK(big)),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "a body that looks like an answer", said: []line{
			asks(crlf("POST / HTTP/1.1", "Content-Length: 20"), "GET / HTTP/1.1\r\n\r\nxx"), answers(httpOK("\r\n" + status(500))), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "pipelined", said: []line{
			asks(httpGET(), httpGET(), httpGET("X: y")), answers(httpOK("1"), status(500, "Content-Length: 2"), "22", httpOK("333")), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 3, bpf.Answer5xx: 1}},
		{what: "pipelined, deeper than times are kept", said: []line{
			asks(strings.Repeat(httpGET(), 40)), answers(strings.Repeat(httpOK("1"), 40)),
		}, want: want{bpf.Answer2xx: 40}, untimed: 31},
		{what: "pipelined into an answer", said: []line{
			asks(httpGET()), answers(httpOK(big)[:300]), asks(httpGET()), answers(httpOK(big)[300:], httpOK("2")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "chunked", said: []line{asks(httpGET()), answers(chunked), asks(httpGET()), answers(chunked)}, want: want{bpf.Answer2xx: 2}},
		{what: "chunked request, trailers", said: []line{
			asks(crlf("PUT / HTTP/1.1", "transfer-encoding: gzip, chunked"), "5\r\nhello\r\n000\r\nA: trailer\r\n\r\n"), answers(httpOK("")), asks(httpGET()), answers(status(500, "Content-Length: 0")),
		}, want: want{bpf.Answer2xx: 1, bpf.Answer5xx: 1}},
		{what: "length beside chunks", said: []line{
			asks(httpGET()), answers(status(200, "Content-Length: 3", "Transfer-Encoding: chunked"), chunks), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "HEAD, 204 and 304 have no body", said: []line{
			asks(crlf("HEAD / HTTP/1.1", "Host: a")), answers(status(200, "Content-Length: 1000")), asks(httpGET()), answers(status(304, "Content-Length: 1000")),
			asks(httpGET()), answers(status(204)), asks(httpGET()), answers(status(500, "Content-Length: 0")),
		}, want: want{bpf.Answer2xx: 2, bpf.Answer3xx: 1, bpf.Answer5xx: 1}},
		{what: "204 and 304 among others", said: []line{
			asks(httpGET(), httpGET(), httpGET()), answers(status(204), status(304, "Content-Length: 99"), httpOK("3")),
		}, want: want{bpf.Answer2xx: 2, bpf.Answer3xx: 1}},
		{what: "HEAD among others", said: []line{
			asks(httpGET(), crlf("HEAD / HTTP/1.1"), httpGET()), answers(httpOK("1"), status(404, "Content-Length: 99"), httpOK("3")),
		}, want: want{bpf.Answer2xx: 2, bpf.Answer4xx: 1}},
		{what: "100 and 103 come before the answer", said: []line{
			asks(crlf("POST / HTTP/1.1", "Content-Length: 5", "Expect: 100-continue")), answers(status(100)), asks("hello"),
			answers(status(103, "Link: </style.css>; rel=preload"), status(201, "Content-Length: 2"), "ok"),
		}, want: want{bpf.Answer2xx: 1}},
		{what: "an answer before the request's end", said: []line{
			asks(crlf("POST / HTTP/1.1", "Content-Length: 10"), "12345"), answers(status(413, "Content-Length: 0")), asks("67890"), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1}},
		{what: "a body that ends with the connection", said: []line{
			asks(crlf("GET / HTTP/1.0")), answers(crlf("HTTP/1.0 200 OK", "Connection: close"), big, status(500)),
		}, want: want{bpf.Answer2xx: 1}},
		{what: "WebSocket", said: []line{
			asks(httpGET("Upgrade: websocket")), answers(status(101, "Upgrade: websocket")), asks("frames\r\n"), answers(status(500)), asks("more"), answers("more"),
		}, want: want{bpf.Answer1xx: 1}, unread: true},
		{what: "CONNECT", said: []line{
			asks(crlf("CONNECT a:443 HTTP/1.1")), answers(status(200)), asks("\x16\x03\x01"), answers(status(500)),
		}, want: want{bpf.Answer2xx: 1}, unread: true},
		{what: "CONNECT refused", said: []line{
			asks(crlf("CONNECT a:443 HTTP/1.1")), answers(status(403, "Content-Length: 0")), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1}},
		{what: "long lines, many fields", said: []line{
			asks(httpGET("Cookie: "+strings.Repeat("c", 3000), "X-Content-Length: 9", "Content-Length-X: 9"+strings.Repeat("\r\nA: b", 100))),
			answers(status(200, "Set-Cookie: "+strings.Repeat("d", 2000)+"content-length: 5", "Content-Length: 2"), "ok"), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "bare line feeds, empty lines between", said: []line{
			asks("\r\n\nGET / HTTP/1.1\nHost: a\n\n"), answers("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), asks("\r\n" + httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "no reason phrase", said: []line{asks(httpGET()), answers("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")}, want: want{bpf.Answer2xx: 1}},
		{what: "an answer that nobody asked for", said: []line{
			asks(httpGET()), answers(httpOK("")), answers(status(408, "Content-Length: 0")),
		}, want: want{bpf.Answer2xx: 1, bpf.Answer4xx: 1}, untimed: 1},
		{what: "TLS", said: []line{asks(record(22, big[:700])), answers(record(22, big[:90]) + record(20, "\x01")), asks(record(20, "\x01") + record(23, "GET")), answers(record(23, "secret")), asks("x"), answers("y")},
			want: want{bpf.AnswerTLS: 2}, unread: true},
		{what: "TLS, the server cannot", said: []line{asks(record(22, big[:700])), answers(record(21, "\x02\x28"))}, want: want{}, tls: 1, unread: true},
		{what: "TLS, the client does not trust the server", said: []line{asks(record(22, big[:700])), answers(record(22, big[:3000])), asks(record(21, "\x02\x30"))}, want: want{}, tls: 1, unread: true},
		{what: "TLS, the client goes away", said: []line{asks(record(22, big[:700])), answers(record(22, big[:3000])), asks(record(21, "\x02\x5a"))}, want: want{}, unread: true},
		{what: "TLS, the client trusts nobody", said: []line{asks(record(22, big[:700]), record(21, "\x02\x30"))}, want: want{}, unread: true},
		{what: "TLS, the client is not understood", said: []line{asks(record(22, big[:700])), answers(record(21, "\x02\x32"))}, want: want{}, unread: true},
		{what: "TLS, warned and closed", said: []line{asks(record(22, big[:700])), answers(record(21, "\x01\x00"))}, want: want{}, unread: true},
		{what: "TLS, a warning, and on", said: []line{asks(record(22, big[:700])), answers(record(21, "\x01\x70") + record(22, big[:90])), asks(record(23, "GET")), answers(record(23, "secret"))},
			want: want{bpf.AnswerTLS: 1}, unread: true},
		{what: "an answer of many chunks", said: []line{asks(httpGET()), answers(status(200, "Transfer-Encoding: chunked"), strings.Repeat("1\r\nx\r\n", 600), "0\r\n\r\n"), asks(httpGET()), answers(httpOK(""))},
			want: want{bpf.Answer2xx: 2}},
		{what: "CONNECT refused behind another request", said: []line{
			asks(httpGET(), crlf("CONNECT a:443 HTTP/1.1")), answers(httpOK(""), status(403, "Content-Length: 0")), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2, bpf.Answer4xx: 1}},
		{what: "a status that is none", said: []line{asks(httpGET()), answers("HTTP/1.1 2:0 OK\r\n\r\n")}, want: want{bpf.AnswerUnparsed: 1}, unread: true, ordered: true},
		{what: "TLS, an alert that is hidden", said: []line{asks(record(22, big[:700])), answers(record(21, big[:26]))}, want: want{}, unread: true},
		{what: "another protocol", said: []line{asks("\x00\x00\x00\x01"), answers("\x00")}, want: want{bpf.AnswerUnparsed: 1}, unread: true},
		{what: "the server speaks first", said: []line{answers("220 mail.example\r\n"), asks("EHLO me\r\n"), answers("250 hello\r\n")},
			want: want{bpf.AnswerUnparsed: 1}, unread: true},
		{what: "a request that is none later on", said: []line{
			asks(httpGET()), answers(httpOK("")), asks("\x00garbage\r\n"), answers("HTTP"), asks("x"), answers("y"),
		}, want: want{bpf.Answer2xx: 1, bpf.AnswerLost: 2}, untimed: 0, unread: true},
		{what: "an answer that is none", said: []line{asks(httpGET()), answers("ICY 200 OK\r\n\r\n"), asks("x"), answers("y")},
			want: want{bpf.AnswerUnparsed: 2}, unread: true, ordered: true},
		{what: "a length that is none", said: []line{asks(httpGET()), answers(status(200, "Content-Length: many"), "xx")}, want: want{bpf.Answer2xx: 1}, unread: true},
		{what: "a chunk that is none", said: []line{asks(httpGET()), answers(status(200, "Transfer-Encoding: chunked"), "zz\r\n")}, want: want{bpf.Answer2xx: 1}, unread: true},
		{what: "chunks inside another coding", said: []line{asks(httpGET()), answers(status(200, "Transfer-Encoding: chunked,gzip"), "4\r\n", status(500))},
			want: want{bpf.Answer2xx: 1}},
		{what: "a coding that is not chunked", said: []line{asks(httpGET()), answers(status(200, "Transfer-Encoding: gzip", "Content-Length: 3"), big, status(500))},
			want: want{bpf.Answer2xx: 1}},
		{what: "codings in a long line", said: []line{
			asks(httpGET()), answers(status(200, "Transfer-Encoding:deflate , gzip,\tchunked \t"), chunks), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "codings, and the line's end in a segment of its own", said: []line{
			asks(httpGET()), answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked"), answers("\r\n\r\n", chunks), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}, only: "whole"},
		{what: "codings in two fields", said: []line{
			asks(httpGET()), answers(status(200, "Transfer-Encoding: gzip", "Transfer-Encoding: Chunked"), chunks), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "a request whose end is not known", said: []line{
			asks(crlf("PUT / HTTP/1.1", "Transfer-Encoding: gzip"), crlf("DELETE / HTTP/1.1")), answers(status(400, "Content-Length: 0")),
		}, want: want{bpf.Answer4xx: 1}},
		{what: "a request of two lengths", said: []line{
			asks(crlf("PUT / HTTP/1.1", "Content-Length: 4", "Content-Length: 5"), "hello"), answers(status(400, "Content-Length: 0")),
		}, want: want{bpf.Answer4xx: 1}},
		{what: "an answer of two lengths", said: []line{asks(httpGET()), answers(status(200, "Content-Length: 4", "Content-Length: 5"), "hello")},
			want: want{bpf.Answer2xx: 1}, unread: true},
		{what: "one length twice", said: []line{
			asks(httpGET()), answers(status(200, "Content-Length: 5", "Content-Length: 5"), "hello"), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 2}},
		{what: "space before the colon", said: []line{
			asks(crlf("POST / HTTP/1.1", "Content-Length : 5"), "hello"), answers(status(200, "Content-Length \t: 7"), "goodbye"),
			asks(httpGET()), answers(status(200, "Transfer-Encoding : chunked"), chunks), asks(httpGET()), answers(httpOK("")),
		}, want: want{bpf.Answer2xx: 3}},
		{what: "a head without an end", said: []line{asks("GET /" + strings.Repeat("x", 20000))}, want: want{}, unread: true, only: "whole"},
	}
}

// TestRootHTTP1 lets clients and servers talk, in all deliveries, and compares
// how the requests were counted.
func TestRootHTTP1(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	eachHook(t, map[string]any{"flows": uint32(1024)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		for _, c := range http1Cases() {
			for _, how := range deliveries(rng) {
				if c.only != "" && c.only != how.name || c.ordered && how.shuffle != nil {
					continue
				}
				t.Run(c.what+", "+how.name, func(t *testing.T) { c.run(t, w.of(t), how) })
			}
		}
	})
}

func (c *http1Case) run(t *testing.T, w *watched, how delivery) {
	tls := w.tally(1).Tls
	d := ended{want: c.want, untimed: c.untimed, unread: c.unread}.after(w, how, func(d *dialogue) {
		for _, l := range c.said {
			d.say(l.side, l.text)
		}
	})
	if n := d.tally(1).Tls - tls; n != c.tls {
		t.Errorf("%d failed handshakes, want %d", n, c.tls)
	}
}

// ended is how a dialogue with stable should end.
type ended struct {
	want    want
	untimed uint64 // answers without a time
	unread  bool   // the connection is not read any more
}

// after lets a dialogue be held and compares how its requests were counted.
func (e ended) after(w *watched, how delivery, plays func(d *dialogue)) *dialogue {
	w.t.Helper()
	before, timed := w.answersOf(1), w.responses(0)
	d := hold(w, how)
	plays(d)
	got, all := want{}, uint64(0)
	for i, n := range w.answersOf(1).Of {
		if n -= before.Of[i]; n > 0 {
			got[bpf.Answer(i)] = n
			all += n
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(e.want) {
		w.t.Errorf("requests ended as %v, want %v", got, e.want)
	}
	if n := w.responses(0) - timed; n != all-e.untimed {
		w.t.Errorf("%d response times were taken of %d answers, want %d", n, all, all-e.untimed)
	}
	f := w.flow(flowKey(d.from, w.vip, tcp))
	if unread := f.Flags&bpf.FlowUnread != 0; unread != e.unread {
		w.t.Errorf("unread: %v, want %v", unread, e.unread)
	}
	return d
}
