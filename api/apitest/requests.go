package apitest

import (
	"context"
	"fmt"
	"time"

	"siskin.dev/siskin/api"
)

// Requests implements api.Control. An interval passes at once; in each a version
// answers as many requests as the interval has milliseconds, and one of a hundred
// of a version other than stable fails.
func (c *Control) Requests(ctx context.Context, service string, interval time.Duration, each func(api.RequestsView) error) error {
	for n := uint64(1); ; n++ {
		services, err := c.Services(ctx)
		if err != nil {
			return err
		}
		view := api.RequestsView{Seconds: interval.Seconds(), EndNs: int64(n) * int64(interval), Versions: []api.VersionRequests{}}
		for _, s := range services {
			if service == "" || service == s.Name {
				for i, v := range s.Versions {
					view.Versions = append(view.Versions, requestsOf(s.Name, v, uint64(interval.Milliseconds()), n, i > 0))
				}
			}
		}
		if service != "" && len(view.Versions) == 0 {
			return fmt.Errorf("there is no service %q: %w; siskin get services lists them", service, api.ErrNotFound)
		}
		if err := each(view); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func requestsOf(service string, v api.VersionView, answers, intervals uint64, fails bool) api.VersionRequests {
	out := api.VersionRequests{Service: service, Version: v.Name, Weight: v.Weight}
	in := api.Answers{Code2xx: answers}
	if fails {
		in.Code5xx = answers / 100
		in.Code2xx -= in.Code5xx
		in.Unparsed, in.Lost = 3, 1
	}
	ratio, p50, p95, p99 := float64(in.Code5xx)/float64(answers), 0.0011, 0.004, 0.02
	total := in
	for _, n := range []*uint64{&total.Code2xx, &total.Code5xx, &total.Unparsed, &total.Lost} {
		*n *= intervals
	}
	out.RequestCounts = api.RequestCounts{Rate: 1000 * float64(in.Sum()) / float64(answers), ErrorRatio: &ratio, Answers: in, Total: total}
	out.Response = api.ResponseTimes{Count: in.Sum(), P50: &p50, P95: &p95, P99: &p99}
	for i, b := range v.Backends {
		one := api.BackendRequests{Address: b.Address}
		if i == 0 { // it has them all
			one.RequestCounts = out.RequestCounts
		}
		out.Backends = append(out.Backends, one)
	}
	return out
}
