package metrics

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"siskin.dev/siskin/bpf"
)

// exampleServices is one live service, and an older one of the same name
// whose flows are still remembered.
func exampleServices() []Service {
	return []Service{{
		Name: "checkout",
		Versions: []Version{
			{Name: "stable", Latency: 1, Asked: 0.95, Backends: []Backend{
				{ID: 1, Address: "10.1.0.2:8080", Up: true},
				{ID: 2, Address: "[2001:db8:1::2]:8080"},
			}},
			{Name: "canary", Latency: 2, Asked: 0.05, Backends: []Backend{
				{ID: 3, Address: "10.1.0.4:8080", Up: true},
			}},
		},
		Baseline: map[uint32]uint64{1: 1000},
	}, {
		Name: "checkout",
		Versions: []Version{
			{Name: "canary", Latency: 3, Asked: 0.5, Retired: true, Backends: []Backend{
				{ID: 4, Address: "10.1.0.4:8080", Up: true, Retired: true},
				{ID: 5, Address: "10.1.0.5:8080", Up: true, Retired: true},
			}},
		},
	}}
}

func exampleSnapshot() Snapshot {
	latency := func(connectNs, responseNs []uint64) (l bpf.Latency) {
		for _, ns := range connectNs {
			l.Connect.Bucket[BucketIndex(ns)]++
			l.Connect.SumNs += ns
		}
		for _, ns := range responseNs {
			l.Response.Bucket[BucketIndex(ns)]++
			l.Response.SumNs += ns
		}
		return l
	}
	s := Snapshot{
		Backends: map[uint32]bpf.Tally{
			1: {Opened: 1900, Closed: 1890, Established: 1895, Packets: [2]uint64{20000, 19000},
				Bytes: [2]uint64{1 << 20, 1 << 30}, Retransmits: [2]uint64{7, 8},
				Refused: 1, Timeout: 2, Reset: 3, Unreachable: 4},
			2: {Opened: 50},
			3: {Opened: 50, Closed: 40},
			4: {Opened: 5, Closed: 6},
			5: {Opened: 9},
		},
		Requests: map[uint32]bpf.Answers{
			1: {Of: [12]uint64{bpf.Answer2xx: 5000, bpf.Answer3xx: 40, bpf.Answer4xx: 30, bpf.Answer5xx: 2, bpf.AnswerUnparsed: 9, bpf.AnswerTLS: 20, bpf.AnswerLost: 1, bpf.AnswerFailed: 5}},
			4: {Of: [12]uint64{bpf.Answer2xx: 8, bpf.AnswerLost: 3}},
		},
		Latencies: map[uint32]bpf.Latency{
			1: latency([]uint64{20e3, 30e3, 1e6, 1e9}, []uint64{250e6, 100e9, 1000e9}),
			2: latency([]uint64{100e3}, nil),
			3: latency([]uint64{200e3}, nil),
		},
		Reasons:   map[bpf.Reason]uint64{},
		FlowTable: FlowTable{Entries: 12, Capacity: 262144, Handshakes: 3, Datagrams: 5, Ticks: 77},
		PortTries: bpf.PortTries{Found: [17]uint64{4, 90, 6, 3, 16: 1}, Exhausted: 2, Sum: 8000},
		MapBytes:  map[string]uint64{"flows": 31457280, "counters": 4096},
	}
	for i, r := range bpf.Reasons() {
		s.Reasons[r.Index] = uint64(100 + i)
	}
	return s
}

// example returns a registry with everything that a daemon exports.
func example(t *testing.T, read func(Wanted) (Snapshot, error)) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	c, err := NewCollector(Options{Services: exampleServices, Read: read})
	if err != nil {
		t.Fatal(err)
	}
	reg.MustRegister(c)
	d, err := NewDaemon(reg, "v0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	d.Decisions.WithLabelValues("search-v7", "RollingBack", "judged worse").Inc()
	if err := NewReleases(reg, []string{"Pending", "Progressing", "RolledBack"}, exampleReleases); err != nil {
		t.Fatal(err)
	}
	if err := NewListening(reg, func() Listening {
		return Listening{Connections: 4, Waiting: 9, Bytes: 123456, Gaps: 3, Malformed: 1, Crowded: 2, Untold: 5}
	}); err != nil {
		t.Fatal(err)
	}
	return reg
}

// exampleReleases are one that runs, one that was taken back, and one that has
// neither breaker nor lease.
func exampleReleases() []Release {
	return []Release{
		{Name: "checkout-v2", Phase: "Progressing", Breaker: new(false), Lease: new(8500 * time.Millisecond)},
		{Name: "search-v7", Phase: "RolledBack", Breaker: new(true), Lease: new(time.Duration(0))},
		{Name: "waits", Phase: "Pending"},
	}
}

func readExample(Wanted) (Snapshot, error) { return exampleSnapshot(), nil }

// page scrapes a registry as text.
func page(t *testing.T, reg *prometheus.Registry) (status int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(reg, slog.New(slog.DiscardHandler)).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Code, w.Body.String()
}

func TestPage(t *testing.T) {
	_, got := page(t, example(t, readExample))
	want, err := os.ReadFile("testdata/page.txt")
	if err != nil {
		t.Fatal(err)
	}
	// The only line that the example does not decide is the Go version's.
	if diff := cmp.Diff(string(want), withoutGoVersion(got)); diff != "" {
		t.Errorf("page (-want +got)\n%s", diff)
	}
}

func withoutGoVersion(page string) string {
	before, rest, _ := strings.Cut(page, `goversion="`)
	_, after, _ := strings.Cut(rest, `"`)
	return before + `goversion="go"` + strings.TrimPrefix(after, `"`)
}

func TestPromtoolFindsNothing(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is not there: install the package prometheus")
		}
		t.Skip("needs promtool, of the package prometheus")
	}
	_, text := page(t, example(t, readExample))
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestCollectorAsksForWhatItNeeds(t *testing.T) {
	var got Wanted
	reg := example(t, func(w Wanted) (Snapshot, error) {
		got = w
		return exampleSnapshot(), nil
	})
	if _, err := reg.Gather(); err != nil {
		t.Fatal(err)
	}
	want := Wanted{Backends: []uint32{1, 2, 3, 4, 5}, Latencies: []uint32{1, 2, 3}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wanted (-want +got)\n%s", diff)
	}
}

func TestFailedReadFailsTheScrape(t *testing.T) {
	var log bytes.Buffer
	reg := example(t, func(Wanted) (Snapshot, error) { return Snapshot{}, errors.New("the map is gone") })
	w := httptest.NewRecorder()
	Handler(reg, slog.New(slog.NewTextHandler(&log, nil))).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status %d, want 500", w.Code)
	}
	body, _ := io.ReadAll(w.Body)
	for name, text := range map[string]string{"answer": string(body), "log": log.String()} {
		if !strings.Contains(text, "read the kernel's counters: the map is gone") {
			t.Errorf("the %s does not say why: %s", name, text)
		}
	}
}

func TestScrapesAtOnceShareAReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int32
		gate := make(chan struct{})
		reg := example(t, func(Wanted) (Snapshot, error) {
			reads.Add(1)
			<-gate
			return exampleSnapshot(), nil
		})
		var done sync.WaitGroup
		for range 5 {
			done.Go(func() {
				if _, err := reg.Gather(); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all five wait for the one reading
		close(gate)
		done.Wait()
		if got := reads.Load(); got != 1 {
			t.Errorf("5 scrapes at once read the maps %d times", got)
		}
		if _, err := reg.Gather(); err != nil || reads.Load() != 2 {
			t.Errorf("a later scrape: error %v, %d readings in all, want 2", err, reads.Load())
		}
	})
}

func TestNewCollectorRefusesHalfOptions(t *testing.T) {
	if _, err := NewCollector(Options{Services: exampleServices}); err == nil {
		t.Error("a collector without Read was made")
	}
}

func TestSharesSinceTheBaseline(t *testing.T) {
	s := exampleServices()[0]
	shares, n := Shares(s, exampleSnapshot())
	if want := map[string]float64{"stable": 0.95, "canary": 0.05}; n != 1000 || !cmp.Equal(want, shares) {
		t.Errorf("shares %v of %d, want %v of 1000", shares, n, want)
	}
	s.Baseline = Baseline(s, exampleSnapshot())
	if shares, n := Shares(s, exampleSnapshot()); n != 0 || len(shares) != 0 {
		t.Errorf("shares %v of %d right after the change, want none", shares, n)
	}
}
