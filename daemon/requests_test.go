package daemon

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
)

// What is shown of an interval is the difference of two readings, and nothing
// of what was counted before.
func TestRequestsBetweenReadings(t *testing.T) {
	backend := func(id uint32, addr string, retired bool) steering.BackendStatus {
		return steering.BackendStatus{ID: id, Addr: netip.MustParseAddrPort(addr), Retired: retired}
	}
	status := []steering.ServiceStatus{{Name: "shop", Versions: []steering.VersionStatus{
		{Name: "stable", Latency: 1, Share: 9500, Backends: []steering.BackendStatus{
			backend(1, "10.1.0.2:80", false), backend(2, "10.1.0.3:80", false), backend(3, "10.1.0.4:80", true), backend(4, "10.1.0.5:80", true),
		}},
		{Name: "canary", Latency: 2, Share: 500, Backends: []steering.BackendStatus{backend(5, "10.1.0.6:80", false)}},
		{Name: "former", Latency: 3, Retired: true, Backends: []steering.BackendStatus{backend(6, "10.1.0.7:80", true)}},
		{Name: "leaving", Latency: 4, Retired: true, Backends: []steering.BackendStatus{backend(7, "10.1.0.8:80", true)}},
	}}}
	slowThen := func(n uint64) (l bpf.Latency) { // n of a second, from before
		l.Response.Bucket[metrics.BucketIndex(1e9)] = n
		return l
	}
	fast := slowThen(900)
	fast.Response.Bucket[metrics.BucketIndex(1e6)] = 100
	before := requestsReading{status, metrics.Snapshot{
		At:        10 * time.Second,
		Requests:  map[uint32]bpf.Answers{1: {Of: [12]uint64{bpf.Answer2xx: 900}}, 2: {Of: [12]uint64{bpf.Answer5xx: 77}}, 6: {Of: [12]uint64{bpf.Answer2xx: 5}}},
		Backends:  map[uint32]bpf.Tally{1: {Refused: 3, Reset: 4}},
		Latencies: map[uint32]bpf.Latency{1: slowThen(900)},
	}}
	after := requestsReading{status, metrics.Snapshot{
		At: 12 * time.Second,
		Requests: map[uint32]bpf.Answers{
			1: {Of: [12]uint64{bpf.Answer2xx: 980, bpf.Answer4xx: 10, bpf.Answer5xx: 5, bpf.AnswerUnparsed: 3, bpf.AnswerTLS: 2, bpf.AnswerLost: 1, bpf.AnswerFailed: 5}},
			2: {Of: [12]uint64{bpf.Answer5xx: 1}}, // the id was another's, whose counters were reset
			3: {Of: [12]uint64{bpf.Answer2xx: 4}},
			6: {Of: [12]uint64{bpf.Answer2xx: 5}},
			7: {Of: [12]uint64{bpf.AnswerGRPCError: 2}},
		},
		Backends:  map[uint32]bpf.Tally{1: {Refused: 4, Reset: 4, Unreachable: 2, Tls: 3}},
		Latencies: map[uint32]bpf.Latency{1: fast},
	}}
	got := between(before, after)
	if got.Seconds != 2 || got.EndNs != int64(12*time.Second) || len(got.Versions) != 3 {
		t.Fatalf("%v s until %d with %d versions: want 2 s, and the versions stable, canary and leaving", got.Seconds, got.EndNs, len(got.Versions))
	}
	stable, canary, leaving := got.Versions[0], got.Versions[1], got.Versions[2]
	ratio := 6.0 / 100
	want := api.RequestCounts{
		Rate: 53, ErrorRatio: &ratio,
		Answers:          api.Answers{Code2xx: 84, Code4xx: 10, Code5xx: 6, Unparsed: 6, TLS: 2, Lost: 1},
		ConnectionErrors: api.Errors{Refused: 1, Unreachable: 2, TLS: 3},
		Total:            api.Answers{Code2xx: 984, Code4xx: 10, Code5xx: 6, Unparsed: 6, TLS: 2, Lost: 1},
	}
	if d := cmp.Diff(want, stable.RequestCounts); d != "" {
		t.Errorf("stable: %s", d)
	}
	if stable.Response.Count != 100 || *stable.Response.P99 > 0.0011 {
		t.Errorf("times of stable have what was before: %+v", stable.Response)
	}
	var addresses []string
	for _, b := range stable.Backends {
		addresses = append(addresses, b.Address)
	}
	// A removed one is shown while it answers.
	if d := cmp.Diff([]string{"10.1.0.2:80", "10.1.0.3:80", "10.1.0.4:80"}, addresses); d != "" {
		t.Errorf("backends of stable: %s", d)
	}
	if canary.Version != "canary" || canary.Rate != 0 || canary.ErrorRatio != nil || canary.Response.P50 != nil || canary.Weight != 500 {
		t.Errorf("a version without requests: %+v", canary)
	}
	if leaving.Version != "leaving" || leaving.Answers.GRPCError != 2 || *leaving.ErrorRatio != 1 {
		t.Errorf("a removed version that still answers: %+v", leaving)
	}
}
