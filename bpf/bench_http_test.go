package bpf_test

import (
	"fmt"
	"strings"
)

// What a browser or a library asks, and what nginx answers, without a body.
var (
	benchRequest = crlf("GET /api/v1/items/4711?expand=all HTTP/1.1", "Host: checkout.example.com", "User-Agent: agent/1.0 (any; linux)",
		"Accept: application/json, */*", "Accept-Encoding: gzip", "X-Request-Id: 0b9c2f5e-6a57-4d0e-9a57-1c1c5f0f8d11")
	benchResponse = crlf("HTTP/1.1 200 OK", "Server: nginx/1.22.1", "Date: Thu, 26 Nov 2026 15:00:00 GMT", "Content-Type: application/json",
		"Content-Length: 0", "Connection: keep-alive", "Cache-Control: no-store", "X-Request-Id: 0b9c2f5e-6a57-4d0e-9a57-1c1c5f0f8d11")
	benchBody = strings.Repeat("x", 1200)
)

// httpLoads are the packets of HTTP/1, where nobody reads them and where they
// are read.
func httpLoads() []load {
	var out []load
	for _, read := range []bool{false, true} {
		suffix := ""
		if read {
			suffix = ", read"
		}
		out = append(out,
			load{name: "HTTP request" + suffix, flows: 10, services: 1, read: read, frame: httpRequest, prepare: httpAnswered},
			load{name: "HTTP response" + suffix, flows: 10, services: 1, read: read, frame: httpResponse, prepare: httpRequest, egress: true},
			load{name: "HTTP body" + suffix, flows: 10, services: 1, read: read, frame: httpBody, prepare: httpAnnounced, egress: true},
		)
	}
	return out
}

// httpRequest is the i-th request of a connection, httpResponse the answer to
// it, and httpAnswered the answer to the request before.
func httpRequest(w *crowd, i int) []byte {
	p := w.segment(0)
	p.payload = []byte(benchRequest)
	p.seq, p.ack = isn+1+uint32(len(benchRequest)*i), serverISN+1+uint32(len(benchResponse)*i)
	return p.frame()
}

func httpResponse(w *crowd, i int) []byte {
	return packet{src: w.stable, dst: w.clientOf(0), flags: ack, payload: []byte(benchResponse),
		seq: serverISN + 1 + uint32(len(benchResponse)*i), ack: isn + 1 + uint32(len(benchRequest)*(i+1))}.frame()
}

func httpAnswered(w *crowd, i int) []byte {
	if i == 0 {
		return replyOf(w, 0)
	}
	return httpResponse(w, i-1)
}

// httpAnnounced is, once, a request; then the head of a body without an end, of
// which httpBody is a segment.
func httpAnnounced(w *crowd, i int) []byte {
	if i == 0 {
		return httpRequest(w, 0)
	}
	return replyOf(w, i)
}

func httpBody(w *crowd, i int) []byte {
	head := crlf("HTTP/1.1 200 OK", fmt.Sprintf("Content-Length: %d", 1<<40))
	at, text := uint32(len(head)), benchBody
	if i == 0 {
		at, text = 0, head
	} else {
		at += uint32(len(benchBody) * (i - 1))
	}
	return packet{src: w.stable, dst: w.clientOf(0), flags: ack, payload: []byte(text), seq: serverISN + 1 + at, ack: isn + 1 + uint32(len(benchRequest))}.frame()
}
