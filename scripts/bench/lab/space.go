// Package lab builds the networks that the benchmark measures in. Nothing in
// it has a name outside: namespaces are held by threads and processes only, so
// the kernel removes them with the benchmark, however it ends.
package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Space is a network namespace.
type Space struct {
	Role string

	handle netns.NsHandle
	link   *netlink.Handle
	orders chan func() // run by the thread that lives in it
}

// NewSpace makes a namespace with its loopback up.
func NewSpace(role string) (*Space, error) {
	s := &Space{Role: role, orders: make(chan func())}
	made := make(chan error)
	go s.reside(made)
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make the namespace %s: %w", role, err)
	}
	var err error
	if s.link, err = netlink.NewHandleAt(s.handle); err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink in %s: %w", role, err), s.Close())
	}
	if err := errors.Join(s.up("lo"), s.quiet()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// reside makes the namespace on a thread of its own and stays in it. Processes
// are started by this thread, so they are in the namespace, and the kernel
// kills them when the thread ends.
func (s *Space) reside(made chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	var err error
	s.handle, err = netns.New()
	made <- err
	if err != nil {
		return
	}
	for f := range s.orders {
		f()
	}
}

// quiet sets what every end of a measurement has in common. A client that
// makes 20,000 connections a second must be able to use its ports again.
func (s *Space) quiet() error {
	return s.Sysctl(
		"net.ipv4.tcp_max_tw_buckets=2000",
		"net.ipv4.tcp_tw_reuse=1",
		"net.ipv4.tcp_congestion_control=reno",
		"net.ipv4.tcp_max_syn_backlog=65535",
		"net.core.somaxconn=65535",
		"net.ipv4.conf.all.rp_filter=0",
		"net.ipv4.conf.default.rp_filter=0",
		"net.ipv6.conf.all.disable_ipv6=1", // router solicitations are noise
	)
}

// Close ends the processes in the namespace and lets go of it.
func (s *Space) Close() error {
	close(s.orders)
	if s.link != nil {
		s.link.Close()
	}
	return s.handle.Close()
}

// Do runs f on the thread in the namespace. Sockets that f makes stay in it.
func (s *Space) Do(f func() error) error {
	done := make(chan error)
	s.orders <- func() { done <- f() }
	return <-done
}

// Any is for processes that may run on every CPU.
const Any = -1

// Start starts a program in the namespace, on one CPU or on Any.
func (s *Space) Start(cmd *exec.Cmd, cpu int) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &unix.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	return s.Do(func() error {
		if err := pin(cpu); err != nil {
			return err
		}
		return errors.Join(cmd.Start(), pin(Any))
	})
}

// pin sets the CPU of this thread, which its children inherit.
func pin(cpu int) error {
	var set unix.CPUSet
	if cpu == Any {
		for i := range runtime.NumCPU() {
			set.Set(i)
		}
	} else {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("go to CPU %d: %w", cpu, err)
	}
	return nil
}

// Run runs a program with input and returns its output.
func (s *Space) Run(input, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &out
	err := s.Start(cmd, Any)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.String())
	}
	return out.String(), nil
}

// Sysctl sets variables of the namespace, each NAME=VALUE.
func (s *Space) Sysctl(settings ...string) error {
	return s.Do(func() error {
		for _, setting := range settings {
			name, value, _ := strings.Cut(setting, "=")
			path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
			if err := os.WriteFile(path, []byte(value), 0); err != nil {
				return fmt.Errorf("%s: set %s: %w", s.Role, setting, err)
			}
		}
		return nil
	})
}

// FlushConntrack forgets the connections that netfilter tracks here.
func (s *Space) FlushConntrack() error {
	err := s.link.ConntrackTableFlush(netlink.ConntrackTable)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		return nil // nothing is tracked: the module is not loaded
	}
	if err != nil {
		return fmt.Errorf("%s: flush conntrack: %w", s.Role, err)
	}
	return nil
}

func (s *Space) up(dev string) error {
	link, err := s.link.LinkByName(dev)
	if err == nil {
		err = s.link.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("%s: set %s up: %w", s.Role, dev, err)
	}
	return nil
}

// macvlan makes an interface on top of another and sets it up.
func (s *Space) macvlan(dev, under string) error {
	below, err := s.link.LinkByName(under)
	if err == nil {
		err = s.link.LinkAdd(&netlink.Macvlan{
			LinkAttrs: netlink.LinkAttrs{Name: dev, ParentIndex: below.Attrs().Index, TxQLen: 1000},
			Mode:      netlink.MACVLAN_MODE_PRIVATE,
		})
	}
	if err != nil {
		return fmt.Errorf("%s: put %s on %s: %w", s.Role, dev, under, err)
	}
	return s.up(dev)
}

func (s *Space) address(dev string, prefix netip.Prefix) error {
	link, err := s.link.LinkByName(dev)
	if err == nil {
		err = s.link.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix)})
	}
	if err != nil {
		return fmt.Errorf("%s: give %s the address %v: %w", s.Role, dev, prefix, err)
	}
	return nil
}

func (s *Space) route(to netip.Prefix, via netip.Addr) error {
	if err := s.link.RouteAdd(&netlink.Route{Dst: ipNet(to.Masked()), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("%s: route %v via %v: %w", s.Role, to, via, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// join makes a veth pair between two namespaces and sets both ends up.
func join(a *Space, aDev string, b *Space, bDev string) error {
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aDev, MTU: 1500, TxQLen: 1000},
		PeerName:      bDev,
		PeerNamespace: netlink.NsFd(int(b.handle)),
	}
	if err := a.link.LinkAdd(pair); err != nil {
		return fmt.Errorf("join %s with %s: %w", a.Role, b.Role, err)
	}
	return errors.Join(a.up(aDev), b.up(bDev))
}

// Own makes an address one of the namespace's own.
func (s *Space) Own(addr netip.Addr) error {
	return s.address("lo", netip.PrefixFrom(addr, addr.BitLen()))
}
