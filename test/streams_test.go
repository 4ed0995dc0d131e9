package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"

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
