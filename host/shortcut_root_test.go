package host

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

// elsewhere makes a network namespace and returns to the test's.
func elsewhere(t *testing.T) netns.NsHandle {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := errors.Join(netns.Set(here), here.Close()); err != nil {
		t.Fatal(err)
	}
	return ns
}

// moveTo moves an interface to another namespace.
func moveTo(t *testing.T, name string, ns netns.NsHandle) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(l, int(ns)); err != nil {
		t.Fatal(err)
	}
}

// shortcuts is the part of a path that says what may be passed by.
func shortcuts(t *testing.T, n *Network, addr string) steering.Path {
	t.Helper()
	p, err := n.Path(a(addr))
	if err != nil {
		t.Fatalf("path to %s: %v", addr, err)
	}
	return steering.Path{Redirect: p.Redirect, Peer: p.Peer, XDP: p.XDP}
}

func set(indexes ...int) map[int]bool {
	out := make(map[int]bool)
	for _, i := range indexes {
		out[i] = true
	}
	return out
}

func TestRootRedirectPaths(t *testing.T) {
	enterNetns(t)
	ns := elsewhere(t)
	near := add(t, veth("near"), "198.18.1.1/24", "2001:db8:1::1/64")
	up(t, "nearp")
	pod := add(t, veth("pod"), "198.18.2.1/24", "2001:db8:2::1/64")
	moveTo(t, "podp", ns)
	br := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}, "198.18.3.1/24")
	port := add(t, veth("port"))
	moveTo(t, "portp", ns)
	enslave(t, port, br)
	tun := add(t, &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vpn"}, Mode: netlink.TUNTAP_MODE_TUN}, "198.18.4.1/24")
	odd := add(t, veth("odd"), "198.18.5.1/24")
	moveTo(t, "oddp", ns)
	enslave(t, odd, br)
	routeVia(t, pod, "198.18.9.0/24", "198.18.2.254")

	n, err := NewNetwork()
	if err != nil {
		t.Fatal(err)
	}
	none, redirect, peer := steering.Path{}, steering.Path{Redirect: true}, steering.Path{Redirect: true, Peer: true}
	if got := shortcuts(t, n, "198.18.2.2"); got != none {
		t.Errorf("before any hook is there: %+v", got)
	}
	all := Hooks{TC: set(1, near, pod, br, tun, odd)}
	if !n.SetHooks(all) || n.SetHooks(all) {
		t.Error("the first hooks are a change, the same again are none")
	}
	for _, tc := range []struct {
		why, addr string
		want      steering.Path
	}{
		{"this host", "198.18.1.1", none},
		{"loopback", "127.0.0.1", none},
		{"a veth whose peer is here", "198.18.1.2", redirect},
		{"a veth whose peer is here, IPv6", "2001:db8:1::2", redirect},
		{"a veth into a namespace", "198.18.2.2", peer},
		{"a veth into a namespace, IPv6", "2001:db8:2::2", peer},
		{"behind a router in a namespace", "198.18.9.2", peer},
		{"a bridge", "198.18.3.2", redirect},
		{"no Ethernet", "198.18.4.2", none},
		{"a bridge's port with an address", "198.18.5.2", redirect},
	} {
		if got := shortcuts(t, n, tc.addr); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.why, got, tc.want)
		}
	}
	// Clients come by a port of the bridge, so that has the hook.
	n.SetHooks(Hooks{TC: set(port), XDP: set(near, pod)})
	for _, addr := range []string{"198.18.3.2", "198.18.2.2", "198.18.1.2"} {
		if got := shortcuts(t, n, addr); got != none {
			t.Errorf("%s without a tc hook on its interface: %+v", addr, got)
		}
	}
}

// passXDP attaches a program of somebody's to an interface.
func passXDP(t *testing.T, index int) link.Link {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ln, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: index, Flags: link.XDPDriverMode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// The kernel says of a veth that it transmits while its peer runs a program.
func TestRootXDPPaths(t *testing.T) {
	enterNetns(t)
	if features, err := loader.XDPFeaturesOf(1); err != nil {
		t.Fatal(err)
	} else if features == nil {
		t.Skip("needs Linux 6.3, which tells what interfaces can do with XDP")
	}
	up0 := add(t, veth("up0"), "198.18.1.1/24")
	up0p := up(t, "up0p")
	pod := add(t, veth("pod"), "198.18.2.1/24")
	podp := up(t, "podp")
	far := add(t, veth("far"), "198.18.3.1/24")
	up(t, "farp")
	n, err := NewNetwork()
	if err != nil {
		t.Fatal(err)
	}
	refresh := func(want bool) {
		t.Helper()
		if changed, err := n.RefreshXDP(); err != nil || changed != want {
			t.Errorf("the drivers' abilities changed: %t, %v; want %t", changed, err, want)
		}
	}
	refresh(false) // nobody uses XDP
	n.SetHooks(Hooks{TC: set(far, pod), XDP: set(up0)})
	refresh(true)
	passXDP(t, podp)
	refresh(true)
	refresh(false)
	redirect, both := steering.Path{Redirect: true}, steering.Path{Redirect: true, XDP: true}
	for addr, want := range map[string]steering.Path{
		"198.18.2.2": both,
		"198.18.3.2": redirect,    // it takes no frames of others
		"198.18.1.2": {XDP: true}, // sent back by where it came in
	} {
		if got := shortcuts(t, n, addr); got != want {
			t.Errorf("%s: %+v, want %+v", addr, got, want)
		}
	}
	// The answers come back by XDP, and can go to each interface of clients.
	n.SetHooks(Hooks{XDP: set(up0, pod)})
	if got := shortcuts(t, n, "198.18.2.2"); got != (steering.Path{}) {
		t.Errorf("answers have no way to a client: %+v", got)
	}
	n.SetHooks(Hooks{XDP: set(far)})
	refresh(true)
	if got := shortcuts(t, n, "198.18.3.2"); got != (steering.Path{XDP: true}) {
		t.Errorf("back by the interface that it came in by: %+v", got)
	}
	n.SetHooks(Hooks{XDP: set(up0, pod)})
	refresh(true)
	ln := passXDP(t, up0p)
	refresh(true)
	if got := shortcuts(t, n, "198.18.2.2"); got != (steering.Path{XDP: true}) {
		t.Errorf("by XDP on both sides: %+v", got)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	refresh(true)
	if got := shortcuts(t, n, "198.18.2.2"); got != (steering.Path{}) {
		t.Errorf("a client's interface takes no frames any more: %+v", got)
	}
}
