package streams

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// tap stands between a client and a server, as the kernel will, and hands over
// what it will hand over.
type tap struct {
	server string
	at     net.Listener

	mu      sync.Mutex
	d       *Decoder
	answers []Answer
	conns   sync.WaitGroup
}

func newTap(t *testing.T, server string) *tap {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{server: server, at: at, d: New(Limits{})}
	p.conns.Go(func() {
		for slot := uint32(0); ; slot++ {
			client, err := at.Accept()
			if err != nil {
				return
			}
			p.conns.Go(func() { p.join(client, slot) })
		}
	})
	t.Cleanup(p.close)
	return p
}

func (p *tap) close() {
	p.at.Close()
	p.conns.Wait()
}

func (p *tap) join(client net.Conn, slot uint32) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		client.Close()
		return
	}
	over := false
	feed := func(piece Piece) {
		p.mu.Lock()
		defer p.mu.Unlock()
		piece.Conn.Slot, piece.NS = slot, uint64(time.Now().UnixNano())
		if !over {
			p.answers = append(p.answers, p.d.Feed(piece)...)
		}
		over = over || piece.End
	}
	var ways sync.WaitGroup
	ways.Go(func() { carry(client, server, ToServer, feed) })
	ways.Go(func() { carry(server, client, ToClient, feed) })
	ways.Wait()
}

// carry hands over the frames that matter, then passes the bytes on.
func carry(from, to net.Conn, way Way, feed func(Piece)) {
	defer to.Close()
	cut := &cutter{way: way, feed: feed}
	if way == ToServer {
		cut.skip = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	}
	buf := make([]byte, 3000)
	for {
		n, err := from.Read(buf)
		cut.pass(buf[:n])
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			feed(Piece{Way: way, Serial: cut.serial, End: true})
			return
		}
	}
}

// cutter finds the frames in a stream and hands over their heads and, where they
// are the server's, their payloads in pieces of 1,024 bytes.
type cutter struct {
	way    Way
	feed   func(Piece)
	serial uint32
	skip   int // bytes that are not handed over
	hand   int // bytes that are
	head   []byte
}

func (c *cutter) pass(data []byte) {
	for len(data) > 0 {
		n := 0
		switch {
		case c.skip > 0:
			n = min(c.skip, len(data))
			c.skip -= n
		case c.hand > 0:
			n = min(c.hand, len(data), 1024)
			c.hand -= n
			c.give(data[:n])
		default:
			n = min(frameHead-len(c.head), len(data))
			c.head = append(c.head, data[:n]...)
			if len(c.head) == frameHead {
				c.frame()
			}
		}
		data = data[n:]
	}
}

func (c *cutter) frame() {
	length := int(binary.BigEndian.Uint32(c.head) >> 8)
	switch kind := c.head[3]; {
	case c.way == ToServer:
		c.skip = length
		if kind == frameHeaders || kind == frameReset {
			c.give(c.head)
		}
	case kind == frameHeaders || kind == frameReset || kind == framePush || kind == frameGoAway || kind == frameContinuation:
		c.hand = length
		c.give(c.head)
	default:
		c.skip = length
	}
	c.head = c.head[:0]
}

func (c *cutter) give(data []byte) {
	c.feed(Piece{Way: c.way, Serial: c.serial, Data: data})
	c.serial++
}

// counts are the answers by what they say.
func (p *tap) counts(t *testing.T) map[string]int {
	t.Helper()
	p.close()
	got := map[string]int{}
	for _, a := range p.answers {
		got[fmt.Sprintf("%v %d %d", a.Outcome, a.Status, a.GRPC)]++
		if a.BeganNS == 0 || a.EndedNS < a.BeganNS {
			t.Errorf("from %d to %d: %+v", a.BeganNS, a.EndedNS, a)
		}
	}
	if s := p.d.Stats(); s.Errors+s.Gaps+s.Dark > 0 || s.Waiting > 0 {
		t.Errorf("%+v", s)
	}
	return got
}

func same(t *testing.T, got, want map[string]int) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestNetHTTP counts what Go's server answers to Go's client.
func TestNetHTTP(t *testing.T) {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var clear http.Protocols
	clear.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &clear, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscanf(r.URL.Path, "/%d", &code)
		if code == 0 {
			panic(http.ErrAbortHandler)
		}
		if r.Header.Get("Early") != "" {
			w.WriteHeader(http.StatusEarlyHints)
		}
		// All of it first: Go's client stops in the middle, without an end, when it
		// sees a status above 299.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Long", r.Header.Get("X-Long"))
		w.Header().Set("Trailer", "X-Last")
		w.WriteHeader(code)
		w.Write(body)
		w.Header().Set("X-Last", "yes")
	})}
	go server.Serve(at)
	t.Cleanup(func() { server.Close() })
	tap := newTap(t, at.Addr().String())
	transport := &http.Transport{Protocols: &clear}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	want := map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			code := []int{200, 204, 302, 404, 500, 503, 0}[i%7]
			method := []string{"GET", "HEAD", "POST"}[i%3]
			r, _ := http.NewRequest(method, fmt.Sprintf("http://%s/%d", tap.at.Addr(), code), nil)
			if method == "POST" {
				r.Body = io.NopCloser(bytes.NewReader(make([]byte, 100*i)))
			}
			if i%4 == 0 {
				r.Header.Set("Early", "yes")
			}
			r.Header.Set("X-Long", string(bytes.Repeat([]byte{'a' + byte(i%26)}, 150*i)))
			is := "failed 0 -1"
			if answer, err := client.Do(r); err == nil {
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				is = fmt.Sprintf("answered %d -1", answer.StatusCode)
			} else if code != 0 {
				t.Error(err)
			}
			mu.Lock()
			want[is]++
			mu.Unlock()
		})
	}
	all.Wait()
	transport.CloseIdleConnections()
	same(t, tap.counts(t), want)
}

// TestGRPC counts what gRPC's own server answers to its own client.
func TestGRPC(t *testing.T) {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	states := health.NewServer()
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, states)
	go server.Serve(at)
	t.Cleanup(server.Stop)
	tap := newTap(t, at.Addr().String())
	conn, err := grpc.NewClient(tap.at.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := grpc_health_v1.NewHealthClient(conn)

	want := map[string]int{}
	for i := range 60 {
		_, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: []string{"", "nobody"}[i%2]})
		want[fmt.Sprintf("answered 200 %d", status.Code(err))]++
	}
	// A stream that the client gives up, and one that ends with the server.
	ctx, giveUp := context.WithCancel(t.Context())
	for _, end := range []func(){giveUp, server.Stop} {
		stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		end()
		if _, err := stream.Recv(); err == nil {
			t.Error("the stream goes on")
		}
		ctx = t.Context()
	}
	conn.Close()
	want["aborted 0 -1"]++
	want["failed 200 2"]++
	same(t, tap.counts(t), want)
}
