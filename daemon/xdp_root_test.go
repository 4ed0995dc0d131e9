package daemon_test

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/daemon"
	"siskin.dev/siskin/loader"
)

// runsXDP names what an interface runs by XDP in native mode; empty: nothing.
func (b *bed) runsXDP(name string) string {
	b.t.Helper()
	dev, err := netlink.LinkByName(name)
	if err != nil {
		b.t.Fatal(err)
	}
	xdp := dev.Attrs().Xdp
	if xdp == nil || !xdp.Attached || xdp.AttachMode != 1 {
		return ""
	}
	return loader.ProgramName(ebpf.ProgramID(xdp.ProgId))
}

// passXDP runs a program of somebody's on an interface.
func (b *bed) passXDP(name string) link.Link {
	b.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer p.Close()
	ln, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: b.index(name), Flags: link.XDPDriverMode})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { ln.Close() })
	return ln
}

func byXDP(o *daemon.Options) { o.Interfaces, o.XDP = nil, []string{"up0"} }

func TestRootXDP(t *testing.T) {
	b := newBed(t)
	b.caps = ",+bpf,+perfmon,+net_admin" // those of the unit
	path := b.file(shop)
	files := func(o *daemon.Options) { o.Files = []string{path} }
	p := b.launch(files, byXDP)
	if want := "siskin: steering 1 service on up0, pod0"; p.line != want {
		t.Errorf("it said %q, want %q", p.line, want)
	}
	if got := b.runsXDP("up0"); got != "siskin_xdp" {
		t.Errorf("up0 runs %q by XDP, want siskin_xdp", got)
	}
	b.wantHooked("up0", 1) // egress
	b.wantHooked("pod0", 2)
	if code, body := b.get("/readyz"); code != 200 {
		t.Errorf("/readyz: %d %s", code, body)
	}

	// Where XDP can redirect to changes without a word to this namespace.
	tc := bpf.BackendRedirect
	b.wantShortcuts("198.18.1.2", tc)
	if b.tellsXDP() {
		other := b.passXDP("pod0p")
		b.await("word of what pod0 can do", func() bool { return b.shortcuts("198.18.1.2") == tc|bpf.BackendXDP })
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		b.await("word of what pod0 cannot do", func() bool { return b.shortcuts("198.18.1.2") == tc })
	}

	pin := filepath.Join(b.options().BPFFS, layout, "links", strconv.Itoa(b.index("up0"))+"-xdp")
	ln, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ln.Detach(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	b.await("repair", func() bool { return b.runsXDP("up0") == "siskin_xdp" })
	b.await("event of the repair", func() bool { return b.event("LinkReattached") })
	p.end(syscall.SIGKILL)
	if got := b.runsXDP("up0"); got != "siskin_xdp" {
		t.Errorf("without a daemon up0 runs %q by XDP", got)
	}

	p = b.launch() // without files: what was applied is known; by tc
	if got := b.runsXDP("up0"); got != "" {
		t.Errorf("up0 still runs %q by XDP", got)
	}
	b.wantHooked("up0", 2)
	p.end(syscall.SIGKILL)
	b.wantShortcuts("198.18.1.2", tc)
	b.launch(func(o *daemon.Options) { o.XDP = []string{"up0", "pod0"} })
	for _, name := range []string{"up0", "pod0"} {
		if got := b.runsXDP(name); got != "siskin_xdp" {
			t.Errorf("%s runs %q by XDP, want siskin_xdp", name, got)
		}
		b.wantHooked(name, 1)
	}
	b.wantShortcuts("198.18.1.2", 0) // neither takes frames of the other
}

// tellsXDP tells whether the kernel knows what interfaces can do.
func (b *bed) tellsXDP() bool {
	b.t.Helper()
	features, err := loader.XDPFeaturesOf(b.index("pod0"))
	if err != nil {
		b.t.Fatal(err)
	}
	return features != nil
}

// An interface that cannot is not attached to in some other way.
func TestRootXDPRefused(t *testing.T) {
	b := newBed(t)
	other := b.passXDP("up0")
	b.launch(func(o *daemon.Options) { o.Interfaces, o.XDP = []string{"pod0"}, []string{"up0"} })
	if !b.event("AttachFailed") {
		t.Error("no event tells that XDP was refused")
	}
	if code, body := b.get("/readyz"); code != 503 || !strings.Contains(body, "pass by XDP already") {
		t.Errorf("/readyz: %d %s; want 503 and why", code, body)
	}
	// Each try has the hook for what leaves, until XDP is refused.
	b.await("end of the last try", func() bool { return b.hooked("up0") == 0 })
	b.wantHooked("pod0", 2)
	report, err := b.client.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range report.Checks {
		found = found || c.Name == "xdp up0" && c.Status == "fail" && strings.Contains(c.Detail, "pass by XDP already")
	}
	if !found {
		t.Errorf("the doctor does not say it: %+v", report.Checks)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	b.await("XDP once the other has gone", func() bool { return b.runsXDP("up0") == "siskin_xdp" })
	b.await("readiness", func() bool { code, _ := b.get("/readyz"); return code == 200 })
}
