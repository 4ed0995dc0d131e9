package bpf_test

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"siskin.dev/siskin/bpf"
)

type word uint64

// kernelMap makes a map of the compiled programs, not pinned: it is gone with
// the test.
func kernelMap(t *testing.T, name string, entries uint32) *ebpf.Map {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make kernel maps")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	ms := spec.Maps[name].Copy()
	ms.MaxEntries = entries
	m, err := ebpf.NewMap(ms)
	if err != nil {
		t.Fatalf("make map %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestRootMapOfHash(t *testing.T) {
	m := kernelMap(t, "endpoints", 20000)
	table, err := bpf.NewMapOf[bpf.Tuple, bpf.Endpoint](m)
	if err != nil {
		t.Fatal(err)
	}
	want := map[bpf.Tuple]bpf.Endpoint{}
	for i := range uint32(9000) { // more than two batches
		a := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		key := bpf.TupleFrom(netip.AddrPortFrom(a, 80), 6)
		want[key] = bpf.Endpoint{Id: i, Source: bpf.AddrFrom(a)}
		if err := table.Put(key, want[key]); err != nil {
			t.Fatal(err)
		}
	}
	for key := range want {
		if err := table.Delete(key); err != nil {
			t.Fatal(err)
		}
		if err := table.Delete(key); err != nil {
			t.Errorf("deleting what is absent: %v", err)
		}
		delete(want, key)
		break
	}
	got, err := table.All()
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%d entries, want %d: %v", len(got), len(want), err)
	}
	if _, err := bpf.NewMapOf[uint32, bpf.Endpoint](m); err == nil {
		t.Error("a key of another size was accepted")
	}
}

func TestRootMapOfArraySkipsZero(t *testing.T) {
	table, err := bpf.NewMapOf[uint32, bpf.Backend](kernelMap(t, "backends", 10000))
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]bpf.Backend{}
	for _, id := range []uint32{1, 4095, 4096, 9999} {
		want[id] = bpf.Backend{Port: 1, Service: id}
		if err := table.Put(id, want[id]); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Delete(4096); err != nil {
		t.Fatal(err)
	}
	delete(want, 4096)
	got, err := table.All()
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, want %v: %v", got, want, err)
	}
	if err := table.Put(10000, bpf.Backend{}); err == nil {
		t.Error("an index past the end was written")
	}
}

func TestRootWordArray(t *testing.T) {
	m := kernelMap(t, "words", 700) // more than a page
	words, err := bpf.NewWordArray[word](m)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []uint32{0, 1, 699} {
		w := word(0x0123456789abcdef) + word(i)
		words.Store(i, w)
		var seen uint64
		if err := m.Lookup(&i, &seen); err != nil || word(seen) != w || words.Load(i) != w {
			t.Errorf("word %d: the map has %x, memory %x, want %x: %v", i, seen, words.Load(i), w, err)
		}
	}
	if err := words.Close(); err != nil {
		t.Error(err)
	}
	if _, err := bpf.NewWordArray[word](kernelMap(t, "maglev", 8)); err == nil {
		t.Error("an array of 32-bit values was accepted")
	}
}

func TestRootMaglevArray(t *testing.T) {
	array, err := bpf.NewMaglevArray(kernelMap(t, "maglev", 20000))
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]uint32, 16381)
	for i := range ids {
		ids[i] = uint32(i) + 1
	}
	if err := array.Fill(3000, ids); err != nil {
		t.Fatal(err)
	}
	got, err := array.Read(2999, 16383)
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != 0 || got[16382] != 0 || !slices.Equal(got[1:16382], ids) {
		t.Error("the run is not what was written, or its neighbours are")
	}
	if err := array.Fill(19999, ids[:2]); err == nil {
		t.Error("a run past the end was written")
	}
}

func TestRootGrace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root like the other kernel tests")
	}
	if err := bpf.Grace(); err != nil {
		t.Fatal(err)
	}
}
