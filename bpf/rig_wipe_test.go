package bpf_test

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
)

// wipe makes all maps as they were when they were new. The timer stops first,
// and what it may still write on another CPU goes last.
func (o *objects) wipe() error {
	names := []string{"aging"}
	for name := range o.maps() {
		if name != "aging" && name != "flows" && name[0] != '.' { // constants stay
			names = append(names, name)
		}
	}
	for _, name := range append(names, "flows") {
		if err := wipe(o.maps()[name]); err != nil {
			return fmt.Errorf("wipe %s: %w", name, err)
		}
	}
	return nil
}

func wipe(m *ebpf.Map) error {
	switch m.Type() {
	case ebpf.Array:
		if m.Flags()&unix.BPF_F_MMAPABLE != 0 {
			return wipeMemory(m)
		}
		keys := make([]uint32, m.MaxEntries())
		for i := range keys {
			keys[i] = uint32(i)
		}
		value := reflect.ArrayOf(int(m.ValueSize()), reflect.TypeFor[byte]())
		_, err := m.BatchUpdate(keys, reflect.MakeSlice(reflect.SliceOf(value), len(keys), len(keys)).Interface(), nil)
		return err
	case ebpf.PerCPUArray:
		return wipePerCPU(m)
	case ebpf.Hash, ebpf.LRUHash:
		return wipeKeys(m)
	case ebpf.RingBuf:
		return wipeRing(m)
	}
	return fmt.Errorf("it is a %s", m.Type())
}

func wipeMemory(m *ebpf.Map) error {
	memory, err := memoryOf(m)
	if err != nil {
		return err
	}
	clear(memory)
	return unix.Munmap(memory)
}

// memoryOf returns what an array holds, where it can be mapped.
func memoryOf(m *ebpf.Map) ([]byte, error) {
	size := int(m.MaxEntries()) * ((int(m.ValueSize()) + 7) &^ 7)
	return unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func wipePerCPU(m *ebpf.Map) error {
	n, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	value := slices.Repeat([][]byte{make([]byte, m.ValueSize())}, n)
	for i := range m.MaxEntries() {
		if err := m.Put(i, value); err != nil {
			return err
		}
	}
	return nil
}

func wipeKeys(m *ebpf.Map) error {
	for {
		key, err := m.NextKeyBytes(nil)
		if err != nil || key == nil {
			return err
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
}

// wipeRing lets the reader be where the writer is: each says it in the first
// word of a page.
func wipeRing(m *ebpf.Map) error {
	page := os.Getpagesize()
	reader, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	writer, err := unix.Mmap(m.FD(), int64(page), page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return errors.Join(err, unix.Munmap(reader))
	}
	at := atomic.LoadUint64((*uint64)(unsafe.Pointer(&writer[0])))
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&reader[0])), at)
	return errors.Join(unix.Munmap(writer), unix.Munmap(reader))
}

// TestRootRigIsAsNew uses a rig in many ways and wipes it: nothing may be left
// in any map.
func TestRootRigIsAsNew(t *testing.T) {
	eachHook(t, map[string]any{"flows": uint32(512)}, func(t *testing.T, w *watched) {
		w.readRequests(bpf.FrontendRead)
		w.start()
		w.begin(w.releases(), bpf.Watch{Failures: serverErrors(t)})
		d := hold(w, plain())
		d.say(asking, httpGET())
		d.segment(answering, 50, httpOK("")) // too early
		d.say(answering, status(500, "Content-Length: 0"))
		w.datagram(w.newcomer())
		w.await("the timer", func() bool { return w.ticks() > 0 })
		if err := w.wipe(); err != nil {
			t.Fatal(err)
		}
		for name, m := range w.maps() {
			if name[0] != '.' && m.Type() != ebpf.RingBuf {
				wantNothing(t, name, m)
			}
		}
	})
}

// wantNothing fails if a map has a byte that is not zero.
func wantNothing(t *testing.T, name string, m *ebpf.Map) {
	t.Helper()
	something := func(b byte) bool { return b != 0 }
	if m.Flags()&unix.BPF_F_MMAPABLE != 0 {
		memory, err := memoryOf(m)
		if err != nil {
			t.Fatal(err)
		}
		if at := slices.IndexFunc(memory, something); at >= 0 {
			t.Errorf("%s has something at byte %d", name, at)
		}
		if err := unix.Munmap(memory); err != nil {
			t.Fatal(err)
		}
		return
	}
	for key, err := m.NextKeyBytes(nil); key != nil || err != nil; key, err = m.NextKeyBytes(key) {
		if err != nil {
			t.Fatal(err)
		}
		value, err := m.LookupBytes(key)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(value, something) {
			t.Errorf("%s has something at %x", name, key)
			return
		}
	}
}
