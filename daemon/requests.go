package daemon

import (
	"context"
	"fmt"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
)

// requestsReading is one reading of what was said on connections.
type requestsReading struct {
	status []steering.ServiceStatus
	snap   metrics.Snapshot
}

// requests calls each with what was asked and answered in each interval, until
// that or ctx ends it.
func (d *daemon) requests(ctx context.Context, service string, interval time.Duration, each func(api.RequestsView) error) error {
	before, err := d.readRequests(service)
	if err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		after, err := d.readRequests(service)
		if err != nil {
			return err
		}
		if err := each(between(before, after)); err != nil {
			return err
		}
		before = after
	}
}

// readRequests reads the counters of a service, or of all where it is "".
func (d *daemon) readRequests(service string) (r requestsReading, err error) {
	if service == "" {
		r.status = d.rec.StatusOf(func(s *steering.ServiceStatus) bool { return !s.Retired })
	} else if r.status = d.rec.Named(service); len(r.status) == 0 {
		return r, fmt.Errorf("there is no service %q: %w; siskin get services lists them", service, api.ErrNotFound)
	}
	r.snap, err = d.read(metrics.Want(metrics.FromStatus(r.status)))
	return r, err
}

// between is what happened from one reading to the next. What is new since then
// began at 0.
func between(before, after requestsReading) api.RequestsView {
	took := after.snap.At - before.snap.At
	out := api.RequestsView{Seconds: took.Seconds(), EndNs: int64(after.snap.At), Versions: []api.VersionRequests{}}
	for _, s := range after.status {
		for _, v := range s.Versions {
			view := api.VersionRequests{Service: s.Name, Version: v.Name, Weight: api.Share(v.Share), Backends: []api.BackendRequests{}}
			var sum said
			for _, b := range v.Backends {
				one := saidBetween(b.ID, before.snap, after.snap)
				sum.add(one)
				if !b.Retired || one.spoke() {
					view.Backends = append(view.Backends, api.BackendRequests{Address: b.Addr.String(), RequestCounts: one.counts(took)})
				}
			}
			if v.Retired && !sum.spoke() {
				continue
			}
			view.RequestCounts = sum.counts(took)
			view.Response = responseTimes(before.snap.Latencies[v.Latency], after.snap.Latencies[v.Latency])
			out.Versions = append(out.Versions, view)
		}
	}
	return out
}

// said is what was counted for one backend or several.
type said struct {
	in, total bpf.Answers // in the interval, and from the start
	failed    api.Errors  // connections, in the interval
}

func saidBetween(id uint32, before, after metrics.Snapshot) said {
	then, now := before.Requests[id], after.Requests[id]
	out := said{total: now}
	for how := range now.Of {
		out.in.Of[how] = rise(then.Of[how], now.Of[how])
	}
	t, n := traffic(before.Backends[id]).Errors, traffic(after.Backends[id]).Errors
	out.failed = api.Errors{
		Refused: rise(t.Refused, n.Refused), Timeout: rise(t.Timeout, n.Timeout), Reset: rise(t.Reset, n.Reset),
		Unreachable: rise(t.Unreachable, n.Unreachable), TLS: rise(t.TLS, n.TLS),
	}
	return out
}

// rise is how much a counter went up. One that went down is another backend's
// now, which has the id of one that is gone, and began at 0.
func rise(from, to uint64) uint64 {
	if to < from {
		return to
	}
	return to - from
}

func (s *said) add(o said) {
	for how := range o.in.Of {
		s.in.Of[how] += o.in.Of[how]
		s.total.Of[how] += o.total.Of[how]
	}
	addErrors(&s.failed, o.failed)
}

func (s said) spoke() bool {
	return s.in != bpf.Answers{} || s.failed.Sum() > 0
}

func (s said) counts(took time.Duration) api.RequestCounts {
	out := api.RequestCounts{Answers: answers(s.in), Total: answers(s.total), ConnectionErrors: s.failed}
	if took > 0 {
		out.Rate = float64(out.Answers.Sum()) / took.Seconds()
	}
	if known := out.Answers.Known(); known > 0 {
		ratio := float64(out.Answers.Failed()) / float64(known)
		out.ErrorRatio = &ratio
	}
	return out
}

func answers(a bpf.Answers) api.Answers {
	return api.Answers{
		Code1xx: a.Of[bpf.Answer1xx], Code2xx: a.Of[bpf.Answer2xx], Code3xx: a.Of[bpf.Answer3xx],
		Code4xx: a.Of[bpf.Answer4xx], Code5xx: a.Of[bpf.Answer5xx],
		GRPCOK: a.Of[bpf.AnswerGRPCOK], GRPCError: a.Of[bpf.AnswerGRPCError],
		Unparsed: metrics.Unparsed(&a), TLS: a.Of[bpf.AnswerTLS], Lost: a.Of[bpf.AnswerLost],
	}
}

func responseTimes(before, after bpf.Latency) api.ResponseTimes {
	var h bpf.Histogram
	for i := range h.Bucket {
		h.Bucket[i] = rise(before.Response.Bucket[i], after.Response.Bucket[i])
	}
	out := api.ResponseTimes{Count: metrics.Count(&h)}
	for q, to := range map[float64]**float64{0.5: &out.P50, 0.95: &out.P95, 0.99: &out.P99} {
		if v, ok := metrics.Quantile(&h, q); ok {
			*to = &v
		}
	}
	return out
}
