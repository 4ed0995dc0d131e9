package daemon_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/daemon"
)

// shortcuts are the flags of a backend's entry that say what packets to it may
// pass by.
func (b *bed) shortcuts(addr string) uint8 {
	b.t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(b.options().BPFFS, layout, "maps", "backends"), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	defer m.Close()
	table, err := bpf.NewMapOf[uint32, bpf.Backend](m)
	if err != nil {
		b.t.Fatal(err)
	}
	all, err := table.All()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, entry := range all {
		if entry.Addr.Netip().String() == addr {
			return entry.Flags & (bpf.BackendRedirect | bpf.BackendPeer | bpf.BackendXDP)
		}
	}
	b.t.Fatalf("no entry of %s in %v", addr, all)
	return 0
}

func (b *bed) wantShortcuts(addr string, want uint8) {
	b.t.Helper()
	if got := b.shortcuts(addr); got != want {
		b.t.Errorf("the entry of %s says %d, want %d", addr, got, want)
	}
}

// A backend's entry says that packets may pass by the stack while our programs
// are on its interface, and not longer.
func TestRootRedirect(t *testing.T) {
	b := newBed(t)
	path := b.file(shop)
	b.launch(func(o *daemon.Options) { o.Files = []string{path} })
	b.wantShortcuts("198.18.0.1", 0) // the host itself
	b.wantShortcuts("198.18.1.2", bpf.BackendRedirect)

	// Somebody detaches, and what looks like another siskin keeps us away.
	index := b.index("pod0")
	other := b.sameName(index)
	b.detach(index, other)
	b.await("an entry without the hook", func() bool { return b.shortcuts("198.18.1.2") == 0 })
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	b.await("an entry with the hook again", func() bool { return b.shortcuts("198.18.1.2") == bpf.BackendRedirect })
	b.wantHooked("pod0", 2)

	// A backend's interface comes late.
	if err := b.client.Delete(t.Context(), "Service", "shop"); err != nil {
		t.Fatal(err)
	}
	b.apply(strings.Replace(shop, "198.18.1.2", "198.18.3.2", 1), false)
	b.veth("pod1", "198.18.3.1/24")
	b.await("an entry by the new interface", func() bool { return b.shortcuts("198.18.3.2") == bpf.BackendRedirect })
	b.wantHooked("pod1", 2)
}

func TestRootNeverRedirect(t *testing.T) {
	b := newBed(t)
	path := b.file(shop)
	p := b.launch(func(o *daemon.Options) { o.Files = []string{path} })
	b.wantShortcuts("198.18.1.2", bpf.BackendRedirect)
	p.end(9)
	b.wantShortcuts("198.18.1.2", bpf.BackendRedirect) // with the hook that stays
	p = b.launch(func(o *daemon.Options) { o.NeverRedirect = true })
	b.wantShortcuts("198.18.1.2", 0)
	p.end(9)
	b.launch()
	b.wantShortcuts("198.18.1.2", bpf.BackendRedirect)
}

func (b *bed) index(name string) int {
	b.t.Helper()
	dev, err := netlink.LinkByName(name)
	if err != nil {
		b.t.Fatal(err)
	}
	return dev.Attrs().Index
}

// sameName attaches a program that is called as ours are.
func (b *bed) sameName(index int) link.Link {
	b.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "siskin_other", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer p.Close()
	ln, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: p, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { ln.Close() })
	return ln
}

// detach detaches every program from an interface's ingress but one.
func (b *bed) detach(index int, spared link.Link) {
	b.t.Helper()
	info, err := spared.Info()
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range res.Programs {
		id, _ := p.LinkID()
		if id == info.ID {
			continue
		}
		ln, err := link.NewFromID(id)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := errors.Join(ln.Detach(), ln.Close()); err != nil {
			b.t.Fatal(err)
		}
	}
}
