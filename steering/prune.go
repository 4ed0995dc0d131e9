package steering

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"siskin.dev/siskin/bpf"
)

// Prune removes what nobody desires once no flow names it: frontends, then
// backends, then their endpoints, port bits and names. Call it now and then,
// every second or so; where nothing is left over it does nothing.
func (r *Reconciler) Prune() error {
	r.work.Lock()
	defer r.work.Unlock()
	if !r.leftovers() {
		return nil
	}
	// A program that began before the retirement may still be making a flow.
	if err := r.grace(); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	var errs []error
	for _, step := range []func() error{
		r.pruneFrontends, r.pruneBackends, r.pruneEndpoints, r.pruneGate, r.pruneServices, r.writeEchoes, r.grace,
	} {
		// A step whose predecessor failed finds less to remove, never more.
		if err := step(); err != nil {
			errs = append(errs, fmt.Errorf("prune: %w", err))
		}
	}
	r.publish()
	return errors.Join(errs...)
}

// leftovers reports whether there is anything to prune.
func (r *Reconciler) leftovers() bool {
	for _, f := range r.state.frontends {
		if retiredFrontend(f) {
			return true
		}
	}
	for _, b := range r.state.backends {
		if retiredBackend(b) {
			return true
		}
	}
	used, services := r.state.usedVersions(), r.state.usedServices()
	for id, rec := range r.state.services {
		if !services[id] {
			return true
		}
		for slot, version := range rec.Latency {
			if version != 0 && !used[version] && !r.wants(rec, slot) {
				return true
			}
		}
	}
	return len(r.state.vips) > len(r.state.frontends) ||
		len(r.idleEndpoints()) > 0 || !maps.Equal(r.state.gateNeeded(r.maps.Limits.Gate), r.state.gate) ||
		r.state.echoesDiffer() || r.ungraced
}

func (s *state) usedVersions() map[uint32]bool {
	out := map[uint32]bool{}
	for _, b := range s.backends {
		out[b.Version] = true
	}
	return out
}

func (s *state) usedServices() map[uint32]bool {
	out := map[uint32]bool{}
	for _, f := range s.frontends {
		out[f.Service] = true
	}
	for _, b := range s.backends {
		out[b.Service] = true
	}
	return out
}

// wants reports whether the version in a slot is desired.
func (r *Reconciler) wants(rec bpf.ServiceName, slot int) bool {
	name := bpf.Text(rec.Versions[slot][:])
	return slices.ContainsFunc(r.lastGood()[bpf.Text(rec.Name[:])].Versions,
		func(v Version) bool { return v.Name == name })
}

func (r *Reconciler) pruneFrontends() error {
	var retired []bpf.Tuple
	held := map[uint32]bool{}
	for key, f := range r.state.frontends {
		held[f.Id] = true
		if retiredFrontend(f) {
			retired = append(retired, key)
		}
	}
	var stray []uint32 // ids whose frontend was never written, or is gone
	for id := range r.state.vips {
		if !held[id] {
			stray = append(stray, id)
		}
	}
	if len(retired)+len(stray) == 0 {
		return nil
	}
	inUse, err := r.maps.FrontendsInUse()
	if err != nil {
		return fmt.Errorf("find the frontends in use: %w", err)
	}
	var errs []error
	slices.SortFunc(retired, compareTuples)
	for _, key := range retired {
		id := r.state.frontends[key].Id
		if inUse[id] {
			continue
		}
		r.ungraced = true
		err := remove(r.maps.Frontends, r.state.frontends, "frontend "+frontendOf(key).String(), key)
		if err == nil {
			stray = append(stray, id)
		}
		errs = append(errs, err)
	}
	for _, id := range stray {
		if !inUse[id] {
			errs = append(errs, remove(r.maps.VIPs, r.state.vips, "the address of a frontend", id))
		}
	}
	return errors.Join(errs...)
}

func (r *Reconciler) pruneBackends() error {
	// The tables of the frontends that were removed just now may still be
	// read, and what they lead to must be there.
	if err := r.grace(); err != nil {
		return err
	}
	var retired []uint32
	named := r.state.selectable(false)
	for id, b := range r.state.backends {
		if retiredBackend(b) && !named[id] {
			retired = append(retired, id)
		}
	}
	if len(retired) == 0 {
		return nil
	}
	flows, err := r.maps.FlowsOf()
	if err != nil {
		return fmt.Errorf("count the flows of the backends: %w", err)
	}
	var errs []error
	slices.Sort(retired)
	for _, id := range retired {
		if flows[id] == 0 {
			errs = append(errs, remove(r.maps.Backends, r.state.backends, "a backend", id))
		}
	}
	return errors.Join(errs...)
}

// idleEndpoints returns the endpoints that no packet of ours can come from:
// no backend is at their address, or no frontend leads there with their
// protocol, and the one that did is gone. One that was shared stays for as
// long as its address does, since nobody knows whose flows it still has.
func (r *Reconciler) idleEndpoints() []bpf.Tuple {
	s := r.state
	here := map[netip.AddrPort]bool{}
	for _, b := range s.backends {
		here[backendAddr(b)] = true
	}
	led := leadsOf(s.backends, s.frontends)
	var out []bpf.Tuple
	for key, e := range s.endpoints {
		_, alive := s.vips[e.Frontend]
		if !here[key.AddrPort()] || led[key] == nil && e.Frontend != 0 && !alive {
			out = append(out, key)
		}
	}
	slices.SortFunc(out, compareTuples)
	return out
}

func (r *Reconciler) pruneEndpoints() error {
	var errs []error
	for _, key := range r.idleEndpoints() {
		errs = append(errs, remove(r.maps.Endpoints, r.state.endpoints, "endpoint "+frontendOf(key).String(), key))
	}
	return errors.Join(errs...)
}

// gateNeeded returns those of so many gate words that let the entries through.
func (s *state) gateNeeded(words uint32) map[uint32]uint64 {
	need := map[uint32]uint64{}
	for key := range s.frontends {
		word, bit := bpf.GateBit(bpf.GateFrontends, key, words)
		need[word] |= bit
	}
	for key := range s.endpoints {
		word, bit := bpf.GateBit(bpf.GateEndpoints, key, words)
		need[word] |= bit
	}
	return need
}

// pruneGate clears the bits that nothing needs any more.
func (r *Reconciler) pruneGate() error {
	need := r.state.gateNeeded(r.maps.Limits.Gate)
	var errs []error
	for _, word := range slices.Sorted(maps.Keys(r.state.gate)) {
		var err error
		if bits := need[word]; bits == 0 {
			err = remove(r.maps.Gate, r.state.gate, "the gate", word)
		} else {
			err = put(r.maps.Gate, r.state.gate, "the gate", word, bits)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// pruneServices removes the names that stand for nothing any more, so that
// their slots and ids are free.
func (r *Reconciler) pruneServices() error {
	var errs []error
	used, services := r.state.usedVersions(), r.state.usedServices()
	for _, id := range slices.Sorted(maps.Keys(r.state.services)) {
		rec := r.state.services[id]
		_, desired := r.lastGood()[bpf.Text(rec.Name[:])]
		if !desired && !services[id] {
			errs = append(errs, remove(r.maps.Services, r.state.services, "the names of a service", id))
			continue
		}
		for slot, version := range rec.Latency {
			if version != 0 && !used[version] && !r.wants(rec, slot) {
				clear(rec.Versions[slot][:])
				rec.Latency[slot] = 0
			}
		}
		errs = append(errs, put(r.maps.Services, r.state.services, "the names of a service", id, rec))
	}
	return errors.Join(errs...)
}
