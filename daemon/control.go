package daemon

import (
	"context"
	"runtime"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

// control is the daemon as the API sees it.
type control struct{ d *daemon }

var _ api.Control = control{}

func (c control) Apply(_ context.Context, docs []api.Document, dryRun bool) (api.ApplyResult, error) {
	return c.d.apply(docs, dryRun)
}

func (c control) Delete(_ context.Context, kind, name string) error { return c.d.remove(kind, name) }

func (c control) Services(context.Context) ([]api.ServiceView, error) { return c.d.serviceViews() }

func (c control) Backends(context.Context) ([]api.BackendView, error) { return c.d.backendViews() }

func (c control) Flows(ctx context.Context, filter api.FlowFilter, limit int) (api.FlowList, error) {
	return c.d.flowList(ctx, filter, limit)
}

func (c control) Requests(ctx context.Context, service string, interval time.Duration, each func(api.RequestsView) error) error {
	return c.d.requests(ctx, service, interval, each)
}

func (c control) Events(ctx context.Context, after uint64, wait bool) ([]api.Event, error) {
	return c.d.events.after(ctx, after, wait)
}

func (c control) SetWeights(_ context.Context, service string, shares map[string]steering.Share) (api.WeightResult, error) {
	return c.d.setWeights(service, shares)
}

func (c control) Rollback(ctx context.Context, services []string, all bool) (api.RollbackResult, error) {
	return c.d.rollback(bpf.Now(), api.Caller(ctx), services, all)
}

func (c control) Doctor(context.Context) (api.DoctorReport, error) {
	var out api.DoctorReport
	for _, check := range c.d.examine() {
		out.Checks = append(out.Checks, api.Check{
			Name: check.Name, Status: string(check.Status), Detail: check.Detail, Remedy: check.Remedy,
		})
	}
	return out, nil
}

func (c control) Version(context.Context) (api.VersionInfo, error) {
	return api.VersionInfo{
		Version: c.d.opts.Version,
		Go:      runtime.Version(),
		Layout:  loader.LayoutVersion,
		Kernel:  host.KernelRelease(),
	}, nil
}
