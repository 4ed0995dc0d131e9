package bed

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is one network namespace of a bed. Its name under /run/netns lets
// a person look inside with `ip netns exec` while a test is held.
type Namespace struct {
	Name string // under /run/netns
	Role string // "host", "client", …

	tb     testing.TB
	handle netns.NsHandle
	link   *netlink.Handle
	orders chan func()   // run on the resident thread
	asked  atomic.Uint32 // how many ports freshPort has named
}

// Namespace makes a namespace with its loopback up, or returns the one that
// has this role already.
func (b *Bed) Namespace(role string) *Namespace {
	b.tb.Helper()
	if n := b.spaces[role]; n != nil {
		return n
	}
	n := &Namespace{
		Name:   fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), b.number, role),
		Role:   role,
		tb:     b.tb,
		orders: make(chan func()),
	}
	made := make(chan error)
	go n.reside(made)
	if err := <-made; err != nil {
		b.tb.Fatalf("make namespace %s: %v", role, err)
	}
	b.spaces[role] = n
	b.tb.Cleanup(n.remove)

	var err error
	if n.link, err = netlink.NewHandleAt(n.handle); err != nil {
		b.tb.Fatalf("open netlink in %s: %v", role, err)
	}
	// Duplicate address detection would hold every new IPv6 address back.
	n.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	n.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	n.Sysctl("net.ipv6.conf.default.dad_transmits", "0")
	lo, err := n.link.LinkByName("lo")
	if err == nil {
		err = n.link.LinkSetUp(lo)
	}
	if err != nil {
		b.tb.Fatalf("set lo up in %s: %v", role, err)
	}
	return n
}

// reside makes the namespace on a thread of its own and stays in it. Child
// processes are started by this thread, so they are in the namespace, and are
// killed by the kernel when the thread or the whole test process ends.
func (n *Namespace) reside(made chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var err error
	n.handle, err = netns.NewNamed(n.Name)
	made <- err
	if err != nil {
		return
	}
	for f := range n.orders {
		f()
	}
}

func (n *Namespace) remove() {
	close(n.orders)
	if n.link != nil {
		n.link.Close()
	}
	if err := n.handle.Close(); err != nil {
		n.tb.Errorf("close namespace %s: %v", n.Role, err)
	}
	if err := netns.DeleteNamed(n.Name); err != nil {
		n.tb.Errorf("remove namespace %s: %v", n.Role, err)
	}
}

// Do runs f on a thread that is in the namespace. Sockets made by f stay in
// the namespace when they are used elsewhere.
func (n *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the current namespace: %w", err)
	}
	defer here.Close()
	if err := netns.Set(n.handle); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter namespace %s: %w", n.Role, err)
	}
	ferr := f()
	if err := netns.Set(here); err != nil {
		// The thread stays locked and so ends with its goroutine.
		return fmt.Errorf("leave namespace %s: %w", n.Role, err)
	}
	runtime.UnlockOSThread()
	return ferr
}

// Start starts cmd in the namespace. It is killed when the namespace goes.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	done := make(chan error)
	n.orders <- func() { done <- cmd.Start() }
	return <-done
}

// Run runs a program in the namespace, with input on its standard input, and
// fails the test if it fails.
func (n *Namespace) Run(input string, name string, args ...string) string {
	n.tb.Helper()
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	err := n.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		n.tb.Fatalf("%s: %s: %v\n%s", n.Role, cmd, err, out.String())
	}
	return out.String()
}

// Sysctl sets a variable of the namespace, such as net.ipv4.ip_forward.
func (n *Namespace) Sysctl(name, value string) {
	n.tb.Helper()
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	err := n.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
	if err != nil {
		n.tb.Fatalf("%s: set %s to %s: %v", n.Role, name, value, err)
	}
}

// Forward makes the namespace forward packets of both families. Reverse path
// filtering is strict, as on many distributions, unless loose is true.
func (n *Namespace) Forward(loose bool) {
	n.tb.Helper()
	filter := "1"
	if loose {
		filter = "0"
	}
	n.Sysctl("net.ipv4.ip_forward", "1")
	n.Sysctl("net.ipv6.conf.all.forwarding", "1")
	for _, dir := range []string{"all", "default"} {
		n.Sysctl("net.ipv4.conf."+dir+".rp_filter", filter)
	}
}

// Address gives an interface an address.
func (n *Namespace) Address(dev string, prefixes ...string) {
	n.tb.Helper()
	link, err := n.link.LinkByName(dev)
	if err != nil {
		n.tb.Fatalf("%s: find %s: %v", n.Role, dev, err)
	}
	for _, p := range prefixes {
		addr, err := netlink.ParseAddr(p)
		if err != nil {
			n.tb.Fatalf("%s: address %s: %v", n.Role, p, err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := n.link.AddrReplace(link, addr); err != nil {
			n.tb.Fatalf("%s: give %s the address %s: %v", n.Role, dev, p, err)
		}
	}
}

// Route leads a prefix to a gateway.
func (n *Namespace) Route(prefix string, via string) {
	n.tb.Helper()
	n.Advertise(prefix, via, 0)
}

// Advertise leads a prefix to a gateway, and tells those behind it to send TCP
// segments of up to so many bytes, whatever the MTU; 0: by the MTU.
func (n *Namespace) Advertise(prefix string, via string, segment int) {
	n.tb.Helper()
	_, dst, err := parsePrefix(prefix)
	if err != nil {
		n.tb.Fatalf("%s: route: %v", n.Role, err)
	}
	gw := netip.MustParseAddr(via)
	route := &netlink.Route{Dst: dst, Gw: gw.AsSlice(), AdvMSS: segment}
	if err := n.link.RouteReplace(route); err != nil {
		n.tb.Fatalf("%s: route %s via %s: %v", n.Role, prefix, via, err)
	}
}

// AnyIP makes every address of a prefix one of the namespace's own, so that
// clients can have thousands of addresses.
func (n *Namespace) AnyIP(prefix string) {
	n.tb.Helper()
	lo, err := n.link.LinkByName("lo")
	if err != nil {
		n.tb.Fatalf("%s: find lo: %v", n.Role, err)
	}
	_, dst, err := parsePrefix(prefix)
	if err != nil {
		n.tb.Fatalf("%s: any-IP: %v", n.Role, err)
	}
	route := &netlink.Route{
		Dst: dst, LinkIndex: lo.Attrs().Index,
		Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
	}
	if err := n.link.RouteReplace(route); err != nil {
		n.tb.Fatalf("%s: local route %s: %v", n.Role, prefix, err)
	}
}
