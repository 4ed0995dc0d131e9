package daemon

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
)

// openMaps makes the kernel's maps ready for the reconciler.
func (d *daemon) openMaps() (err error) {
	if d.baselines.Counters, err = d.countersID(); err != nil {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count the CPUs: %w", err)
	}
	if d.words, err = bpf.NewWordArray[steering.Word](d.loader.Map("words")); err != nil {
		return err
	}
	if d.changes, err = bpf.NewChanges(d.loader.Map("changes")); err != nil {
		return err
	}
	if d.leases, err = bpf.NewLeases(d.loader.Map("leases")); err != nil {
		return err
	}
	if d.watched, err = bpf.NewReleases(d.loader.Map); err != nil {
		return err
	}
	if d.cutoffs, err = bpf.NewCutoffs(d.loader.Map("cutoffs"), d.loader.Map("cutting")); err != nil {
		return err
	}
	maglev, err := bpf.NewMaglevArray(d.loader.Map("maglev"))
	if err != nil {
		return err
	}
	sizes := d.loader.Sizes()
	d.maps = steering.Maps{
		Gate:      typed[uint32, uint64](d.loader, "gate", &err),
		Frontends: typed[bpf.Tuple, bpf.Frontend](d.loader, "frontends", &err).Counted(d.changes),
		VIPs:      typed[uint32, bpf.Tuple](d.loader, "vips", &err),
		Echoes:    typed[bpf.Addr, uint32](d.loader, "echoes", &err),
		Backends:  typed[uint32, bpf.Backend](d.loader, "backends", &err),
		Endpoints: typed[bpf.Tuple, bpf.Endpoint](d.loader, "endpoints", &err).Counted(d.changes),
		Services:  typed[uint32, bpf.ServiceName](d.loader, "services", &err),
		Words:     d.words,
		Leases:    d.leases,
		Releases:  d.watched,
		Maglev:    maglev,

		FlowsOf:        d.flowsOf,
		FrontendsInUse: d.frontendsInUse,
		Grace:          bpf.Grace,
		Reset:          func(id uint32) error { return d.resetCounters(id, cpus) },
		ResetLatency: func(id uint32) error {
			return d.loader.Map("latencies").Put(id, make([]bpf.Latency, cpus))
		},
		Limits: steering.Limits{
			Services: sizes.Services, Frontends: sizes.Frontends, Backends: sizes.Backends,
			Words: sizes.Words, Versions: sizes.Versions, Maglev: sizes.Maglev, Gate: d.loader.Map("gate").MaxEntries(),
		},
	}
	return err
}

// typed gives a map's entries their types; what fails is joined to errs.
func typed[K, V comparable](l *loader.Loader, name string, errs *error) *bpf.MapOf[K, V] {
	m, err := bpf.NewMapOf[K, V](l.Map(name))
	*errs = errors.Join(*errs, err)
	return m
}

// read takes a snapshot of some counters.
func (d *daemon) read(w metrics.Wanted) (metrics.Snapshot, error) {
	return metrics.Read(d.metricMaps(), w)
}

// readAll takes a snapshot for a scrape, with the memory of the maps.
func (d *daemon) readAll(w metrics.Wanted) (metrics.Snapshot, error) {
	m := d.metricMaps()
	m.Sized = d.loader.Maps()
	return metrics.Read(m, w)
}

func (d *daemon) metricMaps() metrics.Maps {
	return metrics.Maps{
		Counters:  d.loader.Map("counters"),
		Requests:  d.loader.Map("requests"),
		Latencies: d.loader.Map("latencies"),
		Reasons:   d.loader.Map("reasons"),
		Aging:     d.loader.Map("aging"),
		Flows:     d.loader.Map("flows"),
		Tries:     d.loader.Map("tries"),
	}
}

// measured returns the services for a scrape.
func (d *daemon) measured() []metrics.Service {
	d.mu.Lock()
	bases := d.baselines
	d.mu.Unlock()
	out := metrics.FromStatus(d.rec.Status())
	for i := range out {
		out[i].Baseline = bases.Services[out[i].Name].Opened
	}
	return out
}
