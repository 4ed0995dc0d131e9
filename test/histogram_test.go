package test

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"siskin.dev/siskin/test/bed"
)

// Done when 6, the times: what the kernel's histograms say of handshakes and
// first bytes agrees within a bucket with a capture on the same interface.
func TestRootHistograms(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	slow := r.Namespace("slow")
	on := func(n int) []string {
		return []string{bed.V4.On(bed.Wired, n), bed.V6.On(bed.Wired, n)}
	}
	wire := r.ConnectSlowly(bed.End{Space: r.Router, Dev: "wire", Addrs: on(1)}, bed.End{Space: slow, Dev: "wire", Addrs: on(2)})
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			slow.Route(f.Everywhere(), f.At(bed.Wired, 1).String())
			backend := netip.AddrPortFrom(f.At(bed.Wired, 2), 8081)
			frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
			slow.ServeTCP(backend, "slow", ponder)
			name := "slow-" + f.String()
			s.Apply(bed.Service{
				Name: name, Proto: "tcp", Frontends: []netip.AddrPort{frontend}, Stable: []netip.AddrPort{backend},
			})
			tap := r.Host.Tap("up0")
			for i := range 24 {
				// 4 to 50 ms each way, no two alike. Below that a bucket is not
				// much wider than the time for which the machine may take the
				// CPU away between the program and the capture.
				wire.SetDelay(time.Duration(4000*math.Pow(1.12, float64(i))) * time.Microsecond)
				if err := takeTime(r, frontend, i); err != nil {
					t.Fatal(err)
				}
			}
			packets, err := tap.Stop()
			if err != nil {
				t.Fatal(err)
			}
			connect, response := timesIn(packets, frontend)
			metrics := s.Scrape()
			compare(t, connect, metrics.Find("siskin_connect_duration_seconds", "service", name))
			compare(t, response, metrics.Find("siskin_response_duration_seconds", "service", name))
		})
	}
}

// ponder answers a line after the time that it asks for.
func ponder(s *bed.Server, c net.Conn) error {
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		d, err := time.ParseDuration(strings.TrimSpace(string(buf[:n])))
		if err != nil {
			return err
		}
		time.Sleep(d) // the server's work
		if _, err := fmt.Fprintln(c, s.Name); err != nil {
			return err
		}
	}
}

// takeTime makes a connection with two requests on it.
func takeTime(r *bed.Routed, frontend netip.AddrPort, i int) error {
	talk, err := r.Client.TalkTo(netip.AddrPort{}, frontend)
	if err != nil {
		return err
	}
	defer talk.Close()
	for _, d := range []time.Duration{0, time.Duration(i+1) * 1700 * time.Microsecond} {
		if _, err := talk.Ask(d.String()); err != nil {
			return err
		}
	}
	return nil
}

// timesIn reads from a capture the time from each SYN to its SYN-ACK, and
// from each request to the first byte of the response, as the client's side
// of the host saw them.
func timesIn(packets []bed.Packet, frontend netip.AddrPort) (connect, response []time.Duration) {
	syn, request := map[netip.AddrPort]time.Time{}, map[netip.AddrPort]time.Time{}
	for _, p := range packets {
		switch {
		case !p.Out && p.Dst == frontend && p.Flags&bed.SYN != 0:
			syn[p.Src] = p.At
		case p.Out && p.Src == frontend && p.Flags&bed.SYN != 0:
			connect = append(connect, p.At.Sub(syn[p.Dst]))
		case !p.Out && p.Dst == frontend && p.Payload > 0 && request[p.Src].IsZero():
			request[p.Src] = p.At
		case p.Out && p.Src == frontend && p.Payload > 0 && !request[p.Dst].IsZero():
			response = append(response, p.At.Sub(request[p.Dst]))
			delete(request, p.Dst)
		}
	}
	return connect, response
}

// compare sorts both sides and compares them one by one: each is in the same
// bucket or the next.
func compare(t *testing.T, captured []time.Duration, metrics []*dto.Metric) {
	t.Helper()
	if len(metrics) != 1 || len(captured) == 0 {
		t.Errorf("%d histograms, %d captured", len(metrics), len(captured))
		return
	}
	h := metrics[0].GetHistogram()
	if h.GetSchema() != 3 {
		t.Errorf("the schema is %d, want 3", h.GetSchema())
	}
	kernel := bucketsOf(h)
	var tap []int
	var sum float64
	for _, d := range captured {
		sum += d.Seconds()
		// Bucket i ends at 2^(i/8) seconds.
		tap = append(tap, int(math.Ceil(8*math.Log2(d.Seconds()))))
	}
	slices.Sort(tap)
	if len(kernel) != len(tap) || h.GetSampleCount() != uint64(len(tap)) {
		t.Errorf("the kernel has %d times (%d in buckets), the capture %d", h.GetSampleCount(), len(kernel), len(tap))
		return
	}
	for i := range tap {
		if d := kernel[i] - tap[i]; d < -1 || d > 1 {
			t.Errorf("time %d is in bucket %d of the kernel and %d of the capture", i, kernel[i], tap[i])
		}
	}
	if got := h.GetSampleSum(); math.Abs(got-sum) > 0.05*sum {
		t.Errorf("the kernel's times add up to %.4f s, the capture's to %.4f s", got, sum)
	}
}

// bucketsOf lists the bucket of every observation of a native histogram.
func bucketsOf(h *dto.Histogram) []int {
	var list []int
	index, count, delta := 0, int64(0), 0
	for _, span := range h.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			count += h.GetPositiveDelta()[delta]
			delta++
			for range count {
				list = append(list, index)
			}
			index++
		}
	}
	return list
}
