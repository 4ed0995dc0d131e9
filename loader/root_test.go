package loader_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/test/netns"
)

// layout is the directory of this build's pins.
var layout = "v" + strconv.Itoa(loader.LayoutVersion)

// bed is a network namespace and a bpf filesystem of the test's own.
type bed struct {
	t     *testing.T
	bpffs string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `sudo -E make test-root`")
	}
	b := &bed{t: t, bpffs: filepath.Join(mountBPF(t), "siskin")}
	netns.Enter(t)
	t.Cleanup(func() {
		if _, err := loader.Uninstall(b.bpffs); err != nil {
			t.Errorf("uninstall: %v", err)
		}
	})
	return b
}

func mountBPF(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

// veth makes an interface and returns its index. Its peer is name+"p".
func (b *bed) veth(name string) int {
	b.t.Helper()
	l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(l); err != nil {
		b.t.Fatalf("add %s: %v", name, err)
	}
	got, err := netlink.LinkByName(name)
	if err != nil {
		b.t.Fatal(err)
	}
	return got.Attrs().Index
}

// open opens a loader with small maps.
func (b *bed) open(change ...func(*loader.Options)) *loader.Loader {
	b.t.Helper()
	opts := b.options()
	for _, c := range change {
		c(&opts)
	}
	l, err := loader.Open(opts)
	if err != nil {
		b.t.Fatalf("open: %v", err)
	}
	b.t.Cleanup(func() { l.Close() })
	return l
}

func (b *bed) options() loader.Options {
	return loader.Options{
		BPFFS:  b.bpffs,
		Sizes:  loader.Sizes{Flows: 1024, Backends: 64, Frontends: 16, Services: 16, Versions: 16, Words: 16, Maglev: 4096},
		Logger: slog.New(slog.NewTextHandler(b.t.Output(), nil)),
	}
}

func clsact(o *loader.Options) { o.Clsact = true }

func attach(t *testing.T, l *loader.Loader, name string) loader.Interface {
	t.Helper()
	ifi, err := l.Attach(name)
	if err != nil {
		t.Fatalf("attach to %s: %v", name, err)
	}
	return ifi
}

func closeLoader(t *testing.T, l *loader.Loader) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// allLinks lists the ids of all bpf links of the machine.
func allLinks(t *testing.T) []link.ID {
	t.Helper()
	var ids []link.ID
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		ids = append(ids, it.ID)
	}
	if err := it.Err(); err != nil {
		t.Fatalf("list links: %v", err)
	}
	return ids
}

// foreign attaches a program of somebody else, which passes everything on.
func foreign(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "stranger",
		Type:         ebpf.SchedCLS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
		License:      "GPL",
	})
	if err != nil {
		t.Fatalf("load a foreign program: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func foreignLink(t *testing.T, ifindex int, at ebpf.AttachType) link.ID {
	t.Helper()
	ln, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: foreign(t), Attach: at})
	if err != nil {
		t.Fatalf("attach a foreign program: %v", err)
	}
	t.Cleanup(func() { ln.Close() })
	info, err := ln.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.ID
}

func has(progs []link.AttachedProgram, id link.ID) bool {
	return slices.ContainsFunc(progs, func(p link.AttachedProgram) bool {
		got, ok := p.LinkID()
		return ok && got == id
	})
}

func TestRootAttachAndAdopt(t *testing.T) {
	b := newBed(t)
	needTCX(t)
	index := b.veth("up0")
	stranger := foreignLink(t, index, ebpf.AttachTCXIngress)

	l := b.open()
	if err := l.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	if got := attach(t, l, "up0"); got.Ifindex != index || got.Clsact {
		t.Errorf("attached to %+v, want index %d by tcx", got, index)
	}
	attach(t, l, "up0") // again: nothing happens
	before := hooked(t, index, ebpf.AttachTCXEgress)
	if len(before) != 1 {
		t.Fatalf("egress holds %v, want one program", before)
	}
	if err := l.Map("words").Put(uint32(3), uint64(77)); err != nil {
		t.Fatal(err)
	}
	closeLoader(t, l)

	// Another build: its own programs, the same maps and links.
	l = b.open()
	if left, err := l.Leftovers(); err != nil || len(left) != 1 || left[0].Name != "up0" {
		t.Errorf("leftovers %v, %v; want up0", left, err)
	}
	attach(t, l, "up0")
	after := hooked(t, index, ebpf.AttachTCXEgress)
	if len(after) != 1 {
		t.Fatalf("egress holds %v, want one program", after)
	}
	was, _ := before[0].LinkID()
	is, _ := after[0].LinkID()
	if was != is || before[0].ID == after[0].ID {
		t.Errorf("link %d with program %d became link %d with program %d; want the same link, another program",
			was, before[0].ID, is, after[0].ID)
	}
	in := hooked(t, index, ebpf.AttachTCXIngress)
	if len(in) != 2 || !has(in, stranger) {
		t.Errorf("ingress holds %v, want the foreign link %d and ours", in, stranger)
	}
	var word uint64
	if err := l.Map("words").Lookup(uint32(3), &word); err != nil || word != 77 {
		t.Errorf("word is %d, %v; want 77: the map was not adopted", word, err)
	}
	if err := l.Start(); err != nil {
		t.Errorf("start after the upgrade: %v", err)
	}
}

// The clockwork runs without a process, and a later build takes it over.
func TestRootClockOutlivesTheProcess(t *testing.T) {
	b := newBed(t)
	l := b.open()
	if err := l.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	waitTick(t, l)
	closeLoader(t, l)
	l = b.open()
	waitTick(t, l) // the program of the process before
	if err := l.Start(); err != nil {
		t.Fatalf("start again: %v", err)
	}
	waitTick(t, l)
}

// waitTick waits until the timer has run.
func waitTick(t *testing.T, l *loader.Loader) {
	t.Helper()
	ticks := func() uint64 {
		var c bpf.Clockwork
		if err := l.Map("aging").Lookup(uint32(0), &c); err != nil {
			t.Fatal(err)
		}
		return c.Ticks
	}
	first := ticks()
	for deadline := time.Now().Add(10 * time.Second); ticks() == first; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the timer stands still at %d", first)
		}
	}
}

func TestRootUninstallLeavesNothing(t *testing.T) {
	for name, change := range mechanisms() {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			index := b.veth("up0")
			var stranger link.ID
			if name == "tcx" {
				needTCX(t)
			}
			if haveTCX(t) {
				stranger = foreignLink(t, index, ebpf.AttachTCXIngress)
			}
			l := b.open(change)
			attach(t, l, "up0")
			if _, err := loader.Uninstall(b.bpffs); !errors.Is(err, loader.ErrLocked) {
				t.Errorf("uninstall under a running loader: %v, want ErrLocked", err)
			}
			ids := mapIDs(t, l)
			ours := linksOn(t, index)
			closeLoader(t, l)

			n, err := loader.Uninstall(b.bpffs)
			if err != nil {
				t.Fatalf("uninstall: %v", err)
			}
			if n.Links+n.Filters != 2 || n.Maps != len(ids) {
				t.Errorf("removed %+v, want 2 hooks and %d maps", n, len(ids))
			}
			if _, err := os.Stat(b.bpffs); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the directory for pins is still there: %v", err)
			}
			// Others use this machine too, so ids are compared, not counts.
			left := allLinks(t)
			for _, id := range ours {
				if slices.Contains(left, id) != (id == stranger) {
					t.Errorf("of the links %v on the interface, with the stranger's %d, %v are left", ours, stranger, left)
				}
			}
			if got := ourFilters(t, "up0"); len(got) != 0 {
				t.Errorf("filters left: %v", got)
			}
			waitMapsGone(t, ids)
			if n, err := loader.Uninstall(b.bpffs); err != nil || n != (loader.Removed{}) {
				t.Errorf("second uninstall: %+v, %v; want nothing to do", n, err)
			}
		})
	}
}

// linksOn returns the ids of all links on an interface.
func linksOn(t *testing.T, ifindex int) []link.ID {
	t.Helper()
	var ids []link.ID
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		for _, p := range hooked(t, ifindex, at) {
			id, _ := p.LinkID()
			ids = append(ids, id)
		}
	}
	return ids
}

func mapIDs(t *testing.T, l *loader.Loader) map[string]ebpf.MapID {
	t.Helper()
	ids := make(map[string]ebpf.MapID)
	for name, m := range l.Maps() {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, ok := info.ID()
		if !ok {
			t.Fatal("the kernel gives maps no ids")
		}
		if !strings.HasPrefix(name, ".") {
			ids[name] = id
		}
	}
	return ids
}

// waitMapsGone waits until the kernel has freed the maps: it does so a grace
// period after the last reference.
func waitMapsGone(t *testing.T, ids map[string]ebpf.MapID) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for name, id := range ids {
		for {
			m, err := ebpf.NewMapFromID(id)
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if err == nil {
				m.Close()
			}
			if time.Now().After(deadline) {
				t.Errorf("map %s (%d) is still there: %v", name, id, err)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}
