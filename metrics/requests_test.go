package metrics

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"siskin.dev/siskin/bpf"
)

// A service has the codes of what was heard in it, on all its backends.
func TestCodesOfAServiceAreThoseHeardInIt(t *testing.T) {
	shop := Service{Name: "shop", Versions: []Version{
		{Name: "stable", Backends: []Backend{{ID: 1, Address: "10.1.0.2:80"}}},
		{Name: "canary", Backends: []Backend{{ID: 2, Address: "10.1.0.3:80"}}},
	}}
	neighbour := Service{Name: "neighbour", Versions: []Version{{Name: "stable", Backends: []Backend{{ID: 3, Address: "10.1.0.4:80"}}}}}
	http := []string{"1xx", "2xx", "3xx", "4xx", "5xx", "unparsed"}
	for _, tc := range []struct {
		name   string
		stable map[bpf.Answer]uint64
		want   []string // codes of the canary, which had no request
	}{
		{"nothing", nil, nil},
		{"HTTP", map[bpf.Answer]uint64{bpf.Answer2xx: 1}, http},
		{"gRPC", map[bpf.Answer]uint64{bpf.AnswerGRPCError: 1}, []string{"grpc_error", "grpc_ok", "unparsed"}},
		{"both", map[bpf.Answer]uint64{bpf.AnswerGRPCOK: 1, bpf.Answer4xx: 1}, append([]string{"grpc_error", "grpc_ok"}, http...)},
		{"TLS", map[bpf.Answer]uint64{bpf.AnswerTLS: 1}, []string{"unparsed"}},
		{"another protocol", map[bpf.Answer]uint64{bpf.AnswerUnparsed: 1}, []string{"unparsed"}},
		{"lost", map[bpf.Answer]uint64{bpf.AnswerLost: 1}, []string{"unparsed"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stable bpf.Answers
			for how, n := range tc.stable {
				stable.Of[how] = n
			}
			c, err := NewCollector(Options{
				Services: func() []Service { return []Service{shop, neighbour} },
				Read:     func(Wanted) (Snapshot, error) { return Snapshot{Requests: map[uint32]bpf.Answers{1: stable}}, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			reg := prometheus.NewPedanticRegistry()
			reg.MustRegister(c)
			_, text := page(t, reg)
			var got []string
			for line := range strings.Lines(text) {
				if rest, ok := strings.CutPrefix(line, `siskin_requests_total{backend="10.1.0.3:80",code="`); ok {
					code, _, _ := strings.Cut(rest, `"`)
					got = append(got, code)
				}
				if strings.HasPrefix(line, "siskin_requests") && strings.Contains(line, `service="neighbour"`) {
					t.Errorf("a service of which nothing was read has %s", line)
				}
			}
			slices.Sort(got)
			slices.Sort(tc.want)
			if !slices.Equal(got, tc.want) {
				t.Errorf("codes %v, want %v", got, tc.want)
			}
			lost := strings.Contains(text, `siskin_requests_lost_total{backend="10.1.0.3:80"`)
			if lost != (len(tc.want) > 0) {
				t.Errorf("there is a count of lost requests: %t", lost)
			}
			tls := strings.Contains(text, `siskin_requests_tls_total{backend="10.1.0.3:80"`)
			if tls != (tc.stable[bpf.AnswerTLS] > 0) {
				t.Errorf("there is a count of TLS: %t", tls)
			}
		})
	}
}
