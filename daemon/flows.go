package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/metrics"
	"siskin.dev/siskin/steering"
)

// frontendsInUse returns the frontend ids that flows name.
func (d *daemon) frontendsInUse() (map[uint32]bool, error) {
	vips, err := d.maps.VIPs.All()
	if err != nil {
		return nil, err
	}
	ids := make(map[bpf.Tuple]uint32, len(vips))
	for id, at := range vips {
		ids[at] = id
	}
	out := make(map[uint32]bool)
	err = bpf.EachFlow(d.loader.Map("flows"), func(k bpf.FlowKey, _ bpf.Flow) bool {
		if id, ok := ids[frontendOf(k)]; ok {
			out[id] = true
		}
		return true
	})
	return out, err
}

// frontendOf returns the frontend that a flow's client talks to.
func frontendOf(k bpf.FlowKey) bpf.Tuple {
	return bpf.Tuple{Addr: k.Vip, Port: k.Vport, Proto: k.Proto}
}

// clock tells the time on both clocks of the flow records.
type clock struct {
	ns    uint64
	ticks uint32
	tick  time.Duration // how long one is
}

// clock reads the clocks. The ticks are those of the last run of the kernel's
// timer, some ten milliseconds ago.
func (d *daemon) clock() (clock, error) {
	tick, err := bpf.Tick()
	if err != nil {
		return clock{}, err
	}
	var aging bpf.Clockwork
	if err := d.loader.Map("aging").Lookup(uint32(0), &aging); err != nil {
		return clock{}, fmt.Errorf("read the kernel's clock: %w", err)
	}
	return clock{ns: uint64(bpf.Now()), ticks: aging.Now, tick: tick}, nil
}

// since returns how long ago a tick was. Ticks are 32 bits wide and go round;
// the difference is right all the same. A packet may be later than the timer.
func (c clock) since(tick uint32) time.Duration {
	return time.Duration(max(0, int32(c.ticks-tick))) * c.tick
}

// flowsOf returns how many flow records name each backend.
func (d *daemon) flowsOf() (map[uint32]uint64, error) {
	snap, err := d.read(metrics.Want(metrics.FromStatus(d.rec.Status())))
	if err != nil {
		return nil, err
	}
	out := make(map[uint32]uint64)
	for id, t := range snap.Backends {
		// The sums are taken one CPU after the other, so one that was opened
		// and forgotten meanwhile can make forgotten the larger one.
		if t.Opened > t.Forgotten {
			out[id] = t.Opened - t.Forgotten
		}
	}
	return out, nil
}

// owner is what a backend id stands for.
type owner struct {
	service, version string
	addr             netip.AddrPort
}

func owners(status []steering.ServiceStatus) map[uint32]owner {
	backends := make(map[uint32]owner)
	for _, s := range status {
		for _, v := range s.Versions {
			for _, b := range v.Backends {
				backends[b.ID] = owner{s.Name, v.Name, b.Addr}
			}
		}
	}
	return backends
}

func (d *daemon) flowList(ctx context.Context, filter api.FlowFilter, limit int) (api.FlowList, error) {
	snap, err := d.read(metrics.Wanted{})
	if err != nil {
		return api.FlowList{}, err
	}
	out := api.FlowList{Flows: []api.FlowView{}, Entries: snap.FlowTable.Entries, Capacity: snap.FlowTable.Capacity}
	backends := owners(d.rec.Status())
	now, err := d.clock()
	if err != nil {
		return api.FlowList{}, err
	}
	err = bpf.EachFlow(d.loader.Map("flows"), func(k bpf.FlowKey, f bpf.Flow) bool {
		if ctx.Err() != nil {
			return false
		}
		to := backends[f.Backend]
		if !matches(filter, k, f, to) {
			return true
		}
		out.Matched++
		if limit > 0 && len(out.Flows) == limit {
			out.Truncated = true
			return true
		}
		out.Flows = append(out.Flows, flowView(k, f, to, now))
		return true
	})
	// The table has no order of its own; the oldest first is one that lasts.
	slices.SortFunc(out.Flows, func(a, b api.FlowView) int {
		return cmp.Or(cmp.Compare(a.OpenedNs, b.OpenedNs), cmp.Compare(a.Client, b.Client))
	})
	return out, errors.Join(err, ctx.Err())
}

func matches(want api.FlowFilter, k bpf.FlowKey, f bpf.Flow, to owner) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(want.Service, to.service) && is(want.Version, to.version) &&
		(want.Backend == "" || want.Backend == to.addr.String()) &&
		(want.Client == "" || want.Client == k.Client.Netip().String()) &&
		is(want.State, flowState(k.Proto, f))
}

// flowState names the state; a UDP flow is established when it was answered.
func flowState(proto uint8, f bpf.Flow) string {
	up := bpf.FlowEstablished
	if proto == uint8(steering.UDP) {
		up = bpf.FlowAnswered
	}
	switch {
	case f.Flags&bpf.FlowClosed != 0:
		return api.FlowClosed
	case f.Flags&(bpf.FlowFinClient|bpf.FlowFinServer) != 0:
		return api.FlowClosing
	case f.Flags&up != 0:
		return api.FlowEstablished
	}
	return api.FlowSyn
}

func flowView(k bpf.FlowKey, f bpf.Flow, to owner, now clock) api.FlowView {
	at := frontendOf(k)
	age := time.Duration(now.ns - min(now.ns, f.OpenedNs))
	return api.FlowView{
		Client:      netip.AddrPortFrom(k.Client.Netip(), bpf.Port(k.Port)).String(),
		Frontend:    steering.Frontend{Addr: at.AddrPort(), Proto: steering.Proto(at.Proto)}.String(),
		Service:     to.service,
		Version:     to.version,
		Backend:     to.addr.String(),
		State:       flowState(k.Proto, f),
		AgeSeconds:  age.Seconds(),
		IdleSeconds: min(now.since(f.Seen), age).Seconds(),
		OpenedNs:    f.OpenedNs,
		SourcePort:  bpf.Port(f.Port),
		SourceNAT:   f.Flags&bpf.FlowSNAT != 0,
	}
}
