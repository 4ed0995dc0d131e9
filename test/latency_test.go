package test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// Quantiles of the time from request to response are those that clients measure
// themselves, up to a bucket, over HTTP/1 and HTTP/2. Where a busy machine lets
// a client wait for a CPU, that is the client's time and not the response's: so
// there are some attempts.
func TestRootServersLatency(t *testing.T) {
	r, s := bothModes()[0].open(t)
	for _, f := range bed.Families() {
		backend := netip.AddrPortFrom(f.At(bed.Nearby, 2), 8101)
		r.Near.ServeHTTP(backend, wait)
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("http%d-%v", version, f), func(t *testing.T) {
				for attempt := range 4 {
					service := bed.Service{
						Name: fmt.Sprintf("http%d-%v-%d", version, f, attempt), Proto: "tcp", Stable: []netip.AddrPort{backend},
						Frontends: []netip.AddrPort{netip.AddrPortFrom(f.At(bed.VIPs, 10+version), uint16(80+attempt))},
					}
					s.Apply(service)
					took := waits(t, r.Client, service.Frontends[0], version)
					if agree(t, took, responsesOf(t, s, service.Name, len(took))) {
						return
					}
				}
				t.Error("the quantiles do not agree")
			})
		}
	}
}

// agree compares quantiles: each is in the same bucket or the next.
func agree(t *testing.T, client []time.Duration, kernel []int) bool {
	good := true
	for _, q := range []float64{0.5, 0.95, 0.99} {
		rank := int(math.Ceil(q*float64(len(client)))) - 1
		d := kernel[rank] - bucketOf(client[rank])
		good = good && d >= -1 && d <= 1
		t.Logf("p%.0f: client %v, kernel in (%.1f ms, %.1f ms]", 100*q, client[rank],
			1000*math.Exp2(float64(kernel[rank]-1)/8), 1000*math.Exp2(float64(kernel[rank])/8))
	}
	return good
}

// wait answers after the time that is asked for.
func wait(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	time.Sleep(d) // the server's work
	fmt.Fprintln(w, "fine")
}

// bucketOf is the bucket of schema 3: number i ends at 2^(i/8) seconds.
func bucketOf(d time.Duration) int { return int(math.Ceil(8 * math.Log2(d.Seconds()))) }

// waits asks a few times at once, for 4 to 60 ms, and returns in rising order
// how long the first byte took.
func waits(t *testing.T, from *bed.Namespace, to netip.AddrPort, version int) []time.Duration {
	const atOnce, each = 6, 40
	transport := &http.Transport{
		Protocols: new(http.Protocols), MaxIdleConnsPerHost: atOnce,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return from.Dial("tcp", netip.AddrPort{}, to)
		},
	}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetUnencryptedHTTP2(version == 2)
	defer transport.CloseIdleConnections()
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		took  []time.Duration
	)
	for i := range atOnce {
		group.Go(func() {
			for j := range each {
				d := time.Duration(4000*math.Pow(15, float64(j*atOnce+i)/(atOnce*each-1))) * time.Microsecond
				first, err := timed(transport, to, d)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				took = append(took, first)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(took) < atOnce*each {
		t.FailNow()
	}
	slices.Sort(took)
	return took
}

// timed is how long it took from the request to the first byte of its response.
func timed(transport *http.Transport, to netip.AddrPort, d time.Duration) (time.Duration, error) {
	var asked, answered time.Time
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { asked = time.Now() },
		GotFirstResponseByte: func() { answered = time.Now() },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%v/?for=%v", to, d), nil)
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: bed.Patience}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the answer is %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return answered.Sub(asked), err
}

// responsesOf waits until a service has so many response times, and returns
// their buckets in rising order.
func responsesOf(t *testing.T, s *bed.Siskin, service string, want int) []int {
	t.Helper()
	var got []int
	s.Await("all responses have a time", func() bool {
		got = nil
		for _, m := range s.Scrape().Find("siskin_response_duration_seconds", "service", service) {
			if schema := m.GetHistogram().GetSchema(); schema != 3 {
				t.Fatalf("the schema is %d, want 3", schema)
			}
			got = append(got, bucketsOf(m.GetHistogram())...)
		}
		return len(got) == want
	})
	if len(got) != want {
		t.Fatalf("%d times, want %d", len(got), want)
	}
	slices.Sort(got)
	return got
}
