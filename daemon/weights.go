package daemon

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/rollout"
	"siskin.dev/siskin/steering"
)

// setWeights is Control.SetWeights: the store, and then everything else.
func (d *daemon) setWeights(service string, shares map[string]steering.Share) (api.WeightResult, error) {
	if err := rollout.WeightsFree(service, d.conductor.Claims()); err != nil {
		return api.WeightResult{}, fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	change, err := d.rec.SetWeights(service, shares)
	if err != nil {
		return api.WeightResult{}, weightError(err)
	}
	status := d.statusOf(change)
	d.afterStore(status, change)
	d.events.normal("service/"+service, "WeightsChanged", "set by hand: "+sharesText(change.Shares))
	return api.WeightResult{
		Service:        service,
		Old:            sharesOf(status, service, change.Old),
		New:            apiShares(change.Shares),
		StoredBeforeNs: change.Before,
		StoredAfterNs:  change.After,
		StoreMicros:    micros(change.After - change.Before),
	}, nil
}

func weightError(err error) error {
	if errors.Is(err, steering.ErrNoService) {
		return fmt.Errorf("%w: %w", api.ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", api.ErrInvalid, err)
}

// rollback is Control.Rollback. requested is when the request came, by whom.
func (d *daemon) rollback(requested int64, by string, services []string, all bool) (api.RollbackResult, error) {
	out := api.RollbackResult{RequestedNs: requested}
	if all {
		services = nil
	} else if len(services) == 0 {
		return out, fmt.Errorf("%w: name the services to roll back, or say all", api.ErrInvalid)
	}
	changes, err := d.takeBack(by, services...)
	for _, c := range changes {
		out.StoredNs = max(out.StoredNs, c.After)
	}
	if out.StoredNs > 0 {
		out.TookMicros = micros(out.StoredNs - requested)
		d.counters.RollbackDuration.Observe(out.TookMicros / 1e6)
	}
	status := d.statusOf(changes...)
	fates := d.cutOff(status, changes)
	d.afterStore(status, changes...)
	for _, c := range changes {
		policy := fates[c.Service]
		before := sharesOf(status, c.Service, c.Old)
		out.Services = append(out.Services, api.RolledBack{
			Service: c.Service, Before: before, StoredBeforeNs: c.Before, StoredAfterNs: c.After, Connections: policy,
		})
		d.events.warn("service/"+c.Service, "RolledBack",
			"everything to stable; it was "+apiSharesText(before)+"; "+connectionsText(policy))
	}
	if err != nil {
		err = weightError(err)
	}
	return out, err
}

// takeBack moves the traffic of services, of all where none is named, and then
// tells the releases that hold them.
func (d *daemon) takeBack(by string, services ...string) ([]steering.Change, error) {
	d.rollingBack.Add(1)
	defer d.rollingBack.Add(-1)
	changes, err := d.rec.Rollback(services...)
	command := "siskin rollback --all"
	if len(services) > 0 {
		command = "siskin rollback " + strings.Join(services, " ")
	}
	names := make([]string, len(changes))
	for i, c := range changes {
		names[i] = c.Service
	}
	d.conductor.RolledBack(names, by, command)
	return changes, err
}

func micros(ns int64) float64 { return float64(ns) / 1e3 }

func apiShares(in map[string]steering.Share) map[string]api.Share {
	out := make(map[string]api.Share, len(in))
	for name, s := range in {
		out[name] = api.Share(s)
	}
	return out
}

func apiSharesText(in map[string]api.Share) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(in)) {
		parts = append(parts, name+"="+in[name].String())
	}
	return strings.Join(parts, " ")
}

// statusOf returns the services whose words were changed, in the order of
// their names: others may share the word of one that is named. It looks at
// nothing else, for there may be thousands.
func (d *daemon) statusOf(changes ...steering.Change) []steering.ServiceStatus {
	names := make([]string, len(changes))
	for i, c := range changes {
		names[i] = c.Service
	}
	words := make(map[uint32]bool, len(changes))
	for _, s := range d.rec.Named(names...) {
		words[s.Word] = true
	}
	return d.rec.StatusOf(func(s *steering.ServiceStatus) bool { return !s.Retired && words[s.Word] })
}

// find returns the service of a name among those in the order of their names.
func find(status []steering.ServiceStatus, name string) (steering.ServiceStatus, bool) {
	i, ok := slices.BinarySearchFunc(status, name, func(s steering.ServiceStatus, name string) int {
		return strings.Compare(s.Name, name)
	})
	if !ok {
		return steering.ServiceStatus{}, false
	}
	return status[i], true
}

// sharesOf reads a word by the names of a service's versions.
func sharesOf(status []steering.ServiceStatus, service string, w steering.Word) map[string]api.Share {
	out := make(map[string]api.Share)
	s, _ := find(status, service)
	for _, v := range s.Versions {
		if !v.Retired {
			out[v.Name] = api.Share(w.Share(v.Slot))
		}
	}
	return out
}

// afterStore begins to count the achieved shares anew where a word changed,
// for every service that shares it.
func (d *daemon) afterStore(status []steering.ServiceStatus, changes ...steering.Change) {
	words := make(map[uint32]bool)
	for _, c := range changes {
		if s, ok := find(status, c.Service); ok && c.Old != c.New {
			words[s.Word] = true
		}
	}
	status = slices.DeleteFunc(slices.Clone(status), func(s steering.ServiceStatus) bool { return !words[s.Word] })
	if len(status) > 0 {
		d.setBaselines(status)
	}
}

// baseline is the moment from which a service's achieved shares are counted:
// its last change of weights.
type baseline struct {
	Changed   time.Time         `json:"changed"`
	ChangedNs int64             `json:"changedNs"` // the same, CLOCK_MONOTONIC
	Opened    map[uint32]uint64 `json:"opened"`    // connections by backend id, then
}

// baselines are those of all services.
type baselines struct {
	// Counters names the counters that they are about. Those of another boot
	// or of new maps begin at 0.
	Counters string              `json:"counters"`
	Services map[string]baseline `json:"services,omitempty"`
}

func (b baselines) clone() baselines {
	b.Services = maps.Clone(b.Services)
	return b
}

// setBaselines takes the present counters of services as their baselines.
func (d *daemon) setBaselines(status []steering.ServiceStatus) {
	d.unsaved.Store(true) // the weights, in any case
	services := metrics.FromStatus(status)
	snap, err := d.read(metrics.Want(services))
	if err != nil {
		d.log.Error("cannot read the counters, so achieved shares are counted from the change before this one", "error", err)
		return
	}
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.baselines = d.baselines.clone()
	if d.baselines.Services == nil {
		d.baselines.Services = make(map[string]baseline)
	}
	for _, s := range services {
		d.baselines.Services[s.Name] = baseline{now, int64(snap.At), metrics.Baseline(s, snap)}
	}
}

// dropBaseline forgets a deleted service: another one may get its name.
func (d *daemon) dropBaseline(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.baselines = d.baselines.clone()
	delete(d.baselines.Services, name)
	d.unsaved.Store(true)
}

// resetCounters zeroes the counters of a backend id that is given out again.
func (d *daemon) resetCounters(id uint32, cpus int) error {
	if err := d.loader.Map("counters").Put(id, make([]bpf.Tally, cpus)); err != nil {
		return err
	}
	if err := d.loader.Map("requests").Put(id, make([]bpf.Answers, cpus)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.baselines = d.baselines.clone()
	for name, b := range d.baselines.Services {
		b.Opened = maps.Clone(b.Opened) // readers may hold the old one
		delete(b.Opened, id)
		d.baselines.Services[name] = b
	}
	return nil
}

// restoreBaselines takes over saved baselines, if they are about the counters
// that are there.
func (d *daemon) restoreBaselines(b baselines) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.Counters == d.baselines.Counters {
		d.baselines = b
	}
}

// countersID names the counters: a map of one boot.
func (d *daemon) countersID() (string, error) {
	info, err := d.loader.Map("counters").Info()
	if err != nil {
		return "", fmt.Errorf("look at the counters: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return "", errors.New("look at the counters: the kernel gives maps no ids")
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the id of this boot: %w", err)
	}
	return fmt.Sprintf("%s/%d", strings.TrimSpace(string(boot)), id), nil
}
