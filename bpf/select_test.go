package bpf_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// TestRootSelectionTwin compares the kernel's choice of version and table entry
// with what steering computes, for random clients, words and salts.
func TestRootSelectionTwin(t *testing.T) {
	r := newRig(t, map[string]any{"flows": uint32(8192)})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const length = 251
	for i := range uint32(length) {
		r.put(r.Maglev, i, i%7+1)
	}
	for i := range uint32(7) {
		r.backend(i+1, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 2, byte(i)}), 80), backendOptions{})
	}
	vip := netip.MustParseAddrPort("198.18.0.10:80")
	for i := range 2000 {
		fe := bpf.Frontend{Id: 3, Salt: rng.Uint32()}
		if i%2 == 1 {
			fe.Flags = bpf.FrontendByConnection
		}
		for v := range fe.Tables {
			fe.Tables[v].Length = length
		}
		r.put(r.Frontends, bpf.TupleFrom(vip, unix.IPPROTO_TCP), fe)
		r.put(r.Vips, fe.Id, bpf.TupleFrom(vip, unix.IPPROTO_TCP))
		r.openGate(bpf.GateFrontends, bpf.TupleFrom(vip, unix.IPPROTO_TCP))
		word, err := steering.MakeWord(shares(rng), uint8(rng.Uint32()))
		if err != nil {
			t.Fatal(err)
		}
		r.weight(uint64(word))

		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(rng.Uint32()), byte(rng.Uint32())}), uint16(i+1024))
		r.run(r.SiskinIngress, packet{src: client, dst: vip, flags: syn}.frame())
		key := flowKey(client, vip, unix.IPPROTO_TCP)
		flow := r.flow(key)
		who := steering.ClientKey(client.Addr())
		if i%2 == 1 {
			who = steering.ConnectionKey(client, steering.Frontend{Addr: vip, Proto: steering.TCP}, fe.Id)
		}
		if want := word.Pick(who.Bucket(fe.Salt)); flow.Version != want || flow.Epoch != word.Epoch() {
			t.Fatalf("client %s, word %#x: kernel chose version %d (epoch %d), steering %d", client, word, flow.Version, flow.Epoch, want)
		}
		if want := who.Index(length)%7 + 1; flow.Backend != want {
			t.Fatalf("client %s: kernel chose backend %d, steering %d", client, flow.Backend, want)
		}
	}
}

// shares draws four shares that sum to 100 % at most.
func shares(rng *rand.Rand) (s [4]steering.Share) {
	left := int(steering.Whole)
	for _, i := range rng.Perm(4) {
		s[i] = steering.Share(rng.IntN(left + 1))
		left -= int(s[i])
	}
	return s
}

// TestLayout holds the sizes that the documentation promises and that pinned
// maps of older builds rely on; a change here is a new layout version.
func TestLayout(t *testing.T) {
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]uint32{ // key and value sizes in bytes
		"gate": {4, 8}, "frontends": {20, 64}, "vips": {4, 20}, "echoes": {16, 4}, "words": {4, 8}, "leases": {4, 8}, "rooms": {4, 8}, "events": {0, 0},
		"releases": {4, 96}, "cells": {4, 8}, "outcomes": {12, 8}, "successes": {4, 16}, "breakers": {4, 2*(24+128) + 32 + 40},
		"cutoffs": {4, 64}, "cutting": {4, 8},
		"maglev": {4, 4}, "backends": {4, 64}, "endpoints": {20, 24},
		"flows": {4, 128}, "flow_index": {4, 64}, "aliases": {24, 40}, "vacant": {4, 4},
		"aging": {4, 72}, "fragments": {40, 48}, "counters": {4, 128},
		"drafts": {4, 464}, "shortages": {4, 32}, "tries": {4, 8 * 19}, "changes": {4, 8}, "frontend_memos": {4, 88}, "endpoint_memos": {4, 48}, "icmp_works": {4, 208}, "hops": {4, 24},
		"talks": {4, 216}, "requests": {4, 96}, "kept": {4, 32 + 65536 + 2048}, "desks": {4, 712}, "envelopes": {4, 32 + 1024}, "pieces": {0, 0},
		"latencies": {4, 2 * 8 * (bpf.HistogramBuckets + 1)}, "reasons": {4, 8},
		"services": {4, 8 + 2*64 + bpf.Versions*64 + bpf.Versions*4 + 4},
	}
	types := map[string]any{
		"frontends": bpf.Frontend{}, "vips": bpf.Tuple{}, "backends": bpf.Backend{},
		"endpoints": bpf.Endpoint{}, "flows": bpf.Slot{}, "aliases": bpf.FlowKey{}, "hops": bpf.Hop{},
		"shortages": bpf.Shortage{}, "tries": bpf.PortTries{}, "aging": bpf.Clockwork{}, "counters": bpf.Tally{},
		"latencies": bpf.Latency{}, "services": bpf.ServiceName{}, "talks": bpf.Talk{}, "requests": bpf.Answers{},
	}
	for name, m := range spec.Maps {
		if name == ".rodata" {
			continue
		}
		if got := [2]uint32{m.KeySize, m.ValueSize}; got != want[name] {
			t.Errorf("map %s: key and value of %v bytes, want %v", name, got, want[name])
		}
		if v, ok := types[name]; ok && uint32(binary.Size(v)) != m.ValueSize {
			t.Errorf("map %s: the Go type has %d bytes, the map %d", name, binary.Size(v), m.ValueSize)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("map %s is gone", name)
	}
	for i, info := range bpf.Reasons() {
		if int(info.Index) != i+1 || uint32(info.Index) >= spec.Maps["reasons"].MaxEntries {
			t.Errorf("reason %q is out of order", info.Name)
		}
	}
	if int(spec.Maps["reasons"].MaxEntries) != len(bpf.Reasons())+1 {
		t.Error("a reason has no name")
	}
}
