package test

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/host"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
	"siskin.dev/siskin/test/bed"
)

// grouped steers two services that share a weight word. No document can say
// so before there are releases, so this is the one test that goes below the
// commands.
type grouped struct {
	kernel *loader.Loader
	rec    *steering.Reconciler
}

func group(t *testing.T, r *bed.Routed, services []steering.Service) *grouped {
	t.Helper()
	g := &grouped{}
	err := r.Host.Do(func() (err error) {
		g.kernel, err = loader.Open(loader.Options{BPFFS: r.BPFFS + "/siskin", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		paths, err := host.NewNetwork()
		if err != nil {
			return err
		}
		maps, err := mapsOf(g.kernel)
		if err != nil {
			return err
		}
		g.rec = steering.New(maps, paths, slog.New(slog.DiscardHandler))
		if err := errors.Join(g.rec.Restore(), g.rec.Update(services)); err != nil {
			return err
		}
		for _, dev := range []string{"up0", "near"} {
			if _, err := g.kernel.Attach(dev); err != nil {
				return err
			}
		}
		return g.kernel.Start()
	})
	t.Cleanup(func() {
		if g.kernel == nil {
			return
		}
		err := r.Host.Do(func() error {
			cerr := g.kernel.Close()
			_, uerr := loader.Uninstall(r.BPFFS + "/siskin")
			return errors.Join(cerr, uerr)
		})
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func mapsOf(l *loader.Loader) (steering.Maps, error) {
	var errs [9]error
	words, err := bpf.NewWordArray[steering.Word](l.Map("words"))
	errs[0] = err
	maglev, err := bpf.NewMaglevArray(l.Map("maglev"))
	errs[1] = err
	m := steering.Maps{
		Words: words, Maglev: maglev, Grace: bpf.Grace,
		// Nothing is pruned here, so nobody asks what is in use.
		FlowsOf:        func() (map[uint32]uint64, error) { return nil, errors.ErrUnsupported },
		FrontendsInUse: func() (map[uint32]bool, error) { return nil, errors.ErrUnsupported },
	}
	m.Gate, errs[2] = bpf.NewMapOf[uint32, uint64](l.Map("gate"))
	changes, err := bpf.NewChanges(l.Map("changes"))
	if err != nil {
		return m, err
	}
	frontends, err := bpf.NewMapOf[bpf.Tuple, bpf.Frontend](l.Map("frontends"))
	if err != nil {
		return m, err
	}
	m.Frontends = frontends.Counted(changes)
	m.VIPs, errs[4] = bpf.NewMapOf[uint32, bpf.Tuple](l.Map("vips"))
	m.Backends, errs[5] = bpf.NewMapOf[uint32, bpf.Backend](l.Map("backends"))
	endpoints, err := bpf.NewMapOf[bpf.Tuple, bpf.Endpoint](l.Map("endpoints"))
	if err != nil {
		return m, err
	}
	m.Endpoints = endpoints.Counted(changes)
	m.Services, errs[7] = bpf.NewMapOf[uint32, bpf.ServiceName](l.Map("services"))
	m.Echoes, errs[8] = bpf.NewMapOf[bpf.Addr, uint32](l.Map("echoes"))
	s := l.Sizes()
	m.Limits = steering.Limits{Services: s.Services, Frontends: s.Frontends, Backends: s.Backends,
		Words: s.Words, Versions: s.Versions, Maglev: s.Maglev, Gate: l.Map("gate").MaxEntries()}
	return m, errors.Join(errs[:]...)
}

// lastSelected is when the kernel gave a connection to any canary last.
func (g *grouped) lastSelected(t *testing.T) uint64 {
	t.Helper()
	services := metrics.FromStatus(g.rec.Status())
	snap, err := metrics.Read(metrics.Maps{
		Counters: g.kernel.Map("counters"), Requests: g.kernel.Map("requests"), Latencies: g.kernel.Map("latencies"), Reasons: g.kernel.Map("reasons"),
		Aging: g.kernel.Map("aging"), Flows: g.kernel.Map("flows"), Tries: g.kernel.Map("tries"),
	}, metrics.Want(services))
	if err != nil {
		t.Fatal(err)
	}
	var last uint64
	for _, s := range services {
		for _, v := range s.Versions {
			for _, b := range v.Backends {
				if v.Name == "canary" {
					last = max(last, snap.Backends[b.ID].SelectedNs)
				}
			}
		}
	}
	return last
}

// Done when 3, the second part: two services with one weight word flip at the
// same instant, for every flow of both.
func TestRootFlipTogether(t *testing.T) {
	const trials, between = 60, 60 // fewer changes than there are epochs
	r := bed.NewRouted(bed.New(t))
	f := bed.V4
	stable, canary := greeters(r, f)
	var services []steering.Service
	var frontends []netip.AddrPort
	for i, name := range []string{"cart", "checkout"} {
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
		frontends = append(frontends, frontend)
		services = append(services, steering.Service{
			Name: name, Group: "shop", Affinity: steering.ByConnection,
			Frontends: []steering.Frontend{{Addr: frontend, Proto: steering.TCP}},
			Versions: []steering.Version{
				{Name: steering.Stable, Backends: []steering.Backend{{Addr: stable.Addr, Weight: 1}}},
				{Name: "canary", Backends: []steering.Backend{{Addr: canary.Addr, Weight: 1}}},
			},
		})
	}
	g := group(t, r, services)
	load := r.Client.Drive(sweepWorkers, frontends...)
	until := map[uint8]int64{} // by epoch: when it was over
	set := func(service string, share steering.Share) steering.Change {
		t.Helper()
		c, err := g.rec.SetWeights(service, map[string]steering.Share{"canary": share})
		if err != nil {
			t.Fatal(err)
		}
		until[c.Old.Epoch()] = c.After
		if err := load.Await(between); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for trial := range trials {
		names := []string{"cart", "checkout"} // either one sets both
		set(names[trial%2], steering.Whole/2)
		flip := set(names[(trial+1)%2], 0)
		if last := g.lastSelected(t); last == 0 || last > uint64(flip.After) {
			t.Errorf("trial %d: a canary was selected %d ns after the store", trial, int64(last)-flip.After)
		}
	}
	load.Stop()
	if failed := load.Failed.Load(); failed > 0 {
		t.Errorf("%d connections failed: %v", failed, load.Err())
	}
	checkEpochs(t, g.kernel.Map("flows"), until)
}

// checkEpochs looks at every flow that is still remembered: it took its time
// before it read the word, so no flow of an epoch is younger than its end.
func checkEpochs(t *testing.T, flows *ebpf.Map, until map[uint8]int64) {
	t.Helper()
	canaries := map[bpf.Addr]int{} // by frontend
	n := 0
	err := bpf.EachFlow(flows, func(key bpf.FlowKey, flow bpf.Flow) bool {
		n++
		if end, over := until[flow.Epoch]; over && flow.OpenedNs > uint64(end) {
			t.Errorf("a flow of epoch %d was opened %d ns after its end", flow.Epoch, int64(flow.OpenedNs)-end)
		}
		if flow.Version != 0 {
			canaries[key.Vip]++
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d flows, of the canaries %v", n, canaries)
	if n < 1000 || len(canaries) != 2 {
		t.Errorf("%d flows with canaries of %d frontends are too few to say something", n, len(canaries))
	}
}
