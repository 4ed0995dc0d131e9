package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"siskin.dev/siskin/test/bed"
)

// Requests over HTTP/2 are counted by their status, many at a time on one
// connection, as the server says.
func TestRootRequestsHTTP2(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			backend := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8081)
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
			r.Near.ServeHTTP(backend, func(w http.ResponseWriter, r *http.Request) {
				status, _ := strconv.Atoi(r.URL.Query().Get("status"))
				w.WriteHeader(status)
			})
			s := steer(t, r.Bed, r.Host, []string{"up0"})
			s.Apply(bed.Service{Name: "streams", Proto: "tcp", Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend}})
			statuses := map[string]int{"2xx": 200, "4xx": 404, "5xx": 503}
			const each = 100
			transport := cleartextHTTP2(r.Client, frontend)
			var group sync.WaitGroup
			for _, status := range statuses {
				for range 4 {
					group.Go(func() {
						for range each / 4 {
							if err := askStatus(transport, frontend, status); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
			}
			group.Wait()
			transport.CloseIdleConnections()
			for code := range statuses {
				got := 0.0
				s.Await(fmt.Sprintf("%d answers of %s are counted", each, code), func() bool {
					got, _ = s.Scrape().Sum("siskin_requests_total", "service", "streams", "code", code)
					return got == each
				})
				t.Logf("%s: %v", code, got)
			}
			if n, _ := s.Scrape().Sum("siskin_requests_total", "service", "streams"); n != each*float64(len(statuses)) {
				t.Errorf("%v answers in all, want %d", n, each*len(statuses))
			}
		})
	}
}

// A daemon that starts does not know the connections that are open: each request
// there, and each that was asked while none was there, is counted once as one
// whose answer nobody understands. New connections are understood.
func TestRootHTTP2Restart(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			backend := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8081)
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
			r.Near.ServeHTTP(backend, func(w http.ResponseWriter, r *http.Request) {})
			s := steer(t, r.Bed, r.Host, []string{"up0"})
			s.Apply(bed.Service{Name: "streams", Proto: "tcp", Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend}})
			const each = 20
			ask := func(transport *http.Transport) {
				for range each {
					if err := askStatus(transport, frontend, 200); err != nil {
						t.Error(err)
						return
					}
				}
			}
			counted := func(want bed.Answered) {
				var got bed.Answered
				s.Await(fmt.Sprintf("%v are counted", want), func() bool {
					got = countedOf(s, "streams")
					return got.Total() >= want.Total()
				})
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("counted %v, want %v", got, want)
				}
			}
			kept, fresh := cleartextHTTP2(r.Client, frontend), cleartextHTTP2(r.Client, frontend)
			defer kept.CloseIdleConnections()
			defer fresh.CloseIdleConnections()
			ask(kept)
			counted(bed.Answered{"2xx": each})
			s.Kill()
			ask(kept)
			s.Start()
			counted(bed.Answered{"2xx": each, "unparsed": each})
			ask(kept)
			ask(fresh)
			counted(bed.Answered{"2xx": 2 * each, "unparsed": 2 * each})
		})
	}
}

// A server that resets a connection has failed whoever waits there.
func TestRootHTTP2Reset(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			backend := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8081)
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
			var l net.Listener
			if err := r.Near.Do(func() (err error) {
				l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(backend))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan error, 1)
			go func() { served <- resetOne(l) }()
			s := steer(t, r.Bed, r.Host, []string{"up0"})
			s.Apply(bed.Service{Name: "streams", Proto: "tcp", Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend}})
			transport := cleartextHTTP2(r.Client, frontend)
			if err := askStatus(transport, frontend, 200); err == nil {
				t.Error("a reset is an answer")
			}
			if err := <-served; err != nil {
				t.Fatal(err)
			}
			s.Await("the request is counted", func() bool { return countedOf(s, "streams").Total() > 0 })
			if got, want := countedOf(s, "streams"), (bed.Answered{"5xx": 1}); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
}

// resetOne greets the first client, waits for its request and resets it.
func resetOne(l net.Listener) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		if frame.Header().Type == http2.FrameHeaders {
			return conn.(*net.TCPConn).SetLinger(0)
		}
	}
}

func cleartextHTTP2(n *bed.Namespace, to netip.AddrPort) *http.Transport {
	t := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return n.Dial("tcp", netip.AddrPort{}, to)
		},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

func askStatus(t *http.Transport, to netip.AddrPort, status int) error {
	resp, err := (&http.Client{Transport: t, Timeout: bed.Patience}).Get(fmt.Sprintf("http://%v/?status=%d", to, status))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status || resp.ProtoMajor != 2 {
		return fmt.Errorf("answered by %s with %d, want HTTP/2 and %d", resp.Proto, resp.StatusCode, status)
	}
	return nil
}
