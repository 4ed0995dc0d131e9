package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/conduct"
	"siskin.dev/siskin/health"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/rollout/history"
	"siskin.dev/siskin/steering"
)

// daemon is everything between Run's start and end.
type daemon struct {
	opts     Options
	log      *slog.Logger
	loader   *loader.Loader
	rec      *steering.Reconciler
	maps     steering.Maps
	words    *bpf.WordArray[steering.Word]
	changes  *bpf.Changes
	leases   *bpf.Leases
	watched  *bpf.Releases // what the kernel watches while releases run
	cutoffs  *bpf.Cutoffs
	network  *host.Network
	events   *journal
	registry *prometheus.Registry
	counters *metrics.Daemon

	conductor *conduct.Conductor
	history   *history.Store
	checker   *health.Checker
	hearing   *hearing

	// faring is held from asking the checker to saying so to the reconciler,
	// so that what is older never comes last. It is held for one flip.
	faring sync.Mutex

	hooks sync.Mutex // what is attached: the loader is for one at a time

	// writing is held through a change of the desired state, to its end. It
	// is never waited for by a change of weights.
	writing sync.Mutex
	applied map[string]map[string]steering.Share // as in the state file
	// forgotten are weights from before the machine restarted, until they are
	// set again.
	forgotten map[string]map[string]steering.Share

	mu        sync.Mutex // the fields below; held for moments
	intended  intent
	baselines baselines
	problems  map[string][]string // of each service, from the last reconcile
	lapses    map[string]map[lapse]bool
	said      map[string]string // what once has said
	refused   error             // interfaces that XDP was asked for and cannot have

	attached   atomic.Int32 // interfaces
	reconciled atomic.Bool  // the maps are as desired
	beat       atomic.Int64 // when the loop went round last, Unix nanoseconds
	unsaved    atomic.Bool  // the state file lacks something that it should hold
	retry      atomic.Bool  // the last reconcile failed
	hooksMoved atomic.Bool  // since the last reconcile
	// rollingBack counts the rollbacks by hand that have moved traffic, or are
	// about to, and have not yet told the releases.
	rollingBack atomic.Int32
}

// Run steers until ctx ends, and leaves everything in the kernel as it is
// then. An error wraps loader.ErrLocked when another daemon holds this host,
// before anything in the kernel is touched, and api.Problems when a file of
// opts is wrong and nothing was applied before, with which it could go on; then
// nothing is steered or attached.
func Run(ctx context.Context, opts Options) (err error) {
	opts = opts.withDefaults()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // ends the watch on the network, however this ends
	if err := loader.CheckPrivileges(); err != nil {
		return err
	}
	if err := loader.CheckBPFFS(opts.BPFFS); err != nil {
		return err
	}
	if err := os.MkdirAll(opts.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w; choose another with --state-dir", err)
	}
	lock, err := loader.AcquireLock(opts.lockPath())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	doors, err := listen(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, doors.close()) }()

	d, err := start(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	changes, err := host.Watch(ctx, d.log)
	if err != nil {
		return err
	}
	if err := d.takeOver(readFiles(opts.Files)); err != nil {
		return err
	}
	// Before all that takes time: leases of releases that run end meanwhile.
	d.conductAll()
	if err := d.steer(); err != nil {
		return err
	}
	return d.serve(ctx, doors, changes)
}

// start loads the programs and takes over what is in the maps.
func start(opts Options) (_ *daemon, err error) {
	d := &daemon{
		opts:     opts,
		log:      opts.Logger,
		events:   newJournal(opts.Logger),
		checker:  health.New(),
		registry: prometheus.NewRegistry(),
		problems: make(map[string][]string),
		said:     make(map[string]string),
	}
	if d.counters, err = metrics.NewDaemon(d.registry, opts.Version); err != nil {
		return nil, err
	}
	if d.network, err = host.NewNetwork(); err != nil {
		return nil, err
	}
	d.loader, err = loader.Open(loader.Options{
		BPFFS: opts.BPFFS, Sizes: opts.Sizes, PortMin: opts.PortMin, PortMax: opts.PortMax,
		Clsact: opts.Clsact, Logger: opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := d.openMaps(); err != nil {
		return nil, err
	}
	d.rec = steering.New(d.maps, d.network, opts.Logger)
	if err := d.rec.Restore(); err != nil {
		return nil, err
	}
	if err := d.startConductor(); err != nil {
		return nil, err
	}
	if d.hearing, err = d.hear(); err != nil {
		return nil, err
	}
	collector, err := metrics.NewCollector(metrics.Options{Services: d.measured, Read: d.readAll})
	if err != nil {
		return nil, err
	}
	if err := d.registry.Register(collector); err != nil {
		return nil, fmt.Errorf("register the metrics: %w", err)
	}
	return d, nil
}

// close lets go of the kernel's objects. What is pinned and attached stays.
func (d *daemon) close() error {
	d.checker.Close()
	var err error
	if d.hearing != nil {
		err = d.hearing.close()
	}
	if d.conductor != nil {
		d.conductor.Close()
		err = errors.Join(err, d.history.Close())
	}
	if d.watched != nil {
		err = errors.Join(err, d.watched.Close())
	}
	if d.leases != nil {
		err = errors.Join(err, d.leases.Close())
	}
	if d.changes != nil {
		err = errors.Join(err, d.changes.Close())
	}
	if d.words != nil {
		err = errors.Join(err, d.words.Close())
	}
	if d.cutoffs != nil {
		err = errors.Join(err, d.cutoffs.Close())
	}
	return errors.Join(err, d.loader.Close())
}

// steer fills the maps, attaches, and starts the clockwork. Where a part
// fails the rest goes on: the loop tries again.
func (d *daemon) steer() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	left, moving, err := d.leftovers()
	if err != nil {
		return err
	}
	if moving {
		// Entries may count on a hook that is about to go. The network knows of
		// none so far, so this takes that out of them and changes nothing else.
		if err := d.rec.Update(d.rec.Desired()); err != nil {
			d.log.Warn("not every backend's entry could be written before hooks change", "error", err)
		}
	}
	if left {
		// It steers already, so this is a change under traffic.
		if err := d.attach(d.ways(d.intent().services.sorted()...)...); err != nil {
			d.retry.Store(true)
		}
	}
	d.reconcile()
	d.restoreWeights()
	if err := d.attach(); err != nil {
		d.log.Error("not every interface could be attached to", "error", err)
		d.retry.Store(true)
	}
	if err := d.settleLeftovers(); err != nil {
		d.log.Error("could not settle every hook of an earlier daemon", "error", err)
	}
	if err := d.followHooks(); err != nil {
		d.log.Error("not everything is in force yet", "error", err)
	}
	d.endStrays()
	d.tellTroubles()
	return d.loader.Start()
}

// tellTroubles says at the start what the doctor would.
func (d *daemon) tellTroubles() {
	for _, c := range d.examine() {
		if c.Status == host.Warn || c.Status == host.Fail {
			d.events.warn("host", "Doctor", problemText(c))
		}
	}
}

// examine asks the doctor about this host and all services.
func (d *daemon) examine() []host.Check {
	checks := host.Diagnose(host.Gather(host.Question{
		BPFFS:      d.opts.BPFFS,
		Ports:      [2]uint16{d.opts.PortMin, d.opts.PortMax},
		Services:   d.intent().desired(),
		Interfaces: d.opts.named(),
		XDP:        d.opts.XDP,
	}))
	return append(checks, d.examineHealth()...)
}

// once calls say, unless it said the same about key already.
func (d *daemon) once(key string, err error, say func()) {
	text := "x"
	if err != nil {
		text = err.Error()
	}
	d.mu.Lock()
	told := d.said[key] == text
	d.said[key] = text
	d.mu.Unlock()
	if !told {
		say()
	}
}

// forgetOnce makes once say it anew.
func (d *daemon) forgetOnce(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.said, key)
}
