package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Modes in which an interface may run XDP (linux/if_link.h).
const (
	xdpAttachedDriver = 1
	xdpAttachedMulti  = 4
)

// insteadOfXDP ends what is said where XDP is refused.
const insteadOfXDP = "; or attach by tc: --interface instead of --xdp"

// fitForXDP refuses interfaces on which XDP would not see what the programs
// want to see, whatever the driver can do.
func fitForXDP(ifi netlink.Link, layer3 bool) error {
	at := ifi.Attrs()
	switch {
	case at.Flags&net.FlagLoopback != 0:
		return fmt.Errorf("%w: %s is the loopback, where nothing comes in from outside%s", ErrXDP, at.Name, insteadOfXDP)
	case layer3:
		return fmt.Errorf("%w: the packets of %s have no Ethernet header, which the program needs%s", ErrXDP, at.Name, insteadOfXDP)
	case at.MasterIndex != 0 && masterType(at.MasterIndex) == "bridge":
		return fmt.Errorf("%w: %s is a port of a bridge, where frames come by that are for other machines, and XDP cannot tell%s",
			ErrXDP, at.Name, insteadOfXDP)
	}
	return nil
}

// CheckXDP says what keeps an interface from XDP, as far as that can be told
// without trying it: nil means that it can do it, or, before Linux 6.3, that it
// is not known to be unable. The error wraps ErrXDP.
func CheckXDP(name string) error {
	ifi, layer3, err := lookup(name)
	if err != nil {
		return err
	}
	if err := fitForXDP(ifi, layer3); err != nil {
		return err
	}
	at := ifi.Attrs()
	if at.Xdp != nil && at.Xdp.Attached {
		id := ebpf.ProgramID(at.Xdp.ProgId)
		program, err := programName(id)
		if errors.Is(err, unix.EPERM) || program == driver.program(false) {
			return nil // who may not ask cannot tell ours from others
		}
		return fmt.Errorf("%w: %s%s", ErrXDP, taken(at, ProgramName(id)), insteadOfXDP)
	}
	all, err := XDPFeaturesOf(at.Index)
	if err != nil {
		return err
	}
	if all != nil && all[at.Index]&XDPBasic == 0 {
		return fmt.Errorf("%w: %s%s", ErrXDP, unable(at), insteadOfXDP)
	}
	return nil
}

func taken(at *netlink.LinkAttrs, program string) string {
	return fmt.Sprintf("%s runs %s by XDP already, and siskin takes none away", at.Name, program)
}

func unable(at *netlink.LinkAttrs) string {
	return fmt.Sprintf("the driver of %s (%s) has no XDP in native mode, as the interface is set now", at.Name, driverName(at.Name))
}

// masterType is empty where the master is gone by now.
func masterType(index int) string {
	ifi, err := netlink.LinkByIndex(index)
	if err != nil {
		return ""
	}
	return ifi.Type()
}

// runsXDP tells whether an interface of this network namespace runs a program
// by XDP.
func runsXDP(ifindex int, id ebpf.ProgramID) (bool, error) {
	ifi, err := netlink.LinkByIndex(ifindex)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask what interface %d runs by XDP: %w", ifindex, err)
	}
	xdp := ifi.Attrs().Xdp
	switch {
	case xdp == nil || !xdp.Attached:
		return false, nil
	case xdp.AttachMode == xdpAttachedMulti:
		// Another one runs on the card itself, and the kernel names neither.
		return true, nil
	}
	return xdp.AttachMode == xdpAttachedDriver && ebpf.ProgramID(xdp.ProgId) == id, nil
}

// refusal says why the kernel does not attach by XDP, as far as can be found
// out: drivers give their reasons to netlink, and not to a system call.
func refusal(name string, cause error) error {
	ifi, err := netlink.LinkByName(name)
	if err != nil {
		return cause
	}
	why := reasonAgainstXDP(ifi, cause)
	if why == "" {
		return cause
	}
	return fmt.Errorf("%w: %s%s: %w", ErrXDP, why, insteadOfXDP, cause)
}

func reasonAgainstXDP(ifi netlink.Link, cause error) string {
	at := ifi.Attrs()
	if at.Xdp != nil && at.Xdp.Attached {
		return taken(at, ProgramName(ebpf.ProgramID(at.Xdp.ProgId)))
	}
	known := false
	var features XDPFeatures
	// Without an answer the errno has to do.
	if all, err := XDPFeaturesOf(at.Index); err == nil && all != nil {
		known, features = true, all[at.Index]
	}
	driver := driverName(at.Name)
	switch {
	case errors.Is(cause, unix.ENOSPC), errors.Is(cause, unix.ENOMEM):
		return fmt.Sprintf("%s (%s) has too few queues for XDP: `ethtool -l %s` shows them, `ethtool -L` changes them", at.Name, driver, at.Name)
	case errors.Is(cause, unix.ERANGE), errors.Is(cause, unix.E2BIG), errors.Is(cause, unix.EMSGSIZE):
		return tooLarge(at, driver)
	case known && features&XDPBasic == 0, !known && errors.Is(cause, unix.EOPNOTSUPP):
		return unable(at)
	case errors.Is(cause, unix.EOPNOTSUPP):
		return fmt.Sprintf("something that %s (%s) is set to do does not go with XDP, most often large receive offload: "+
			"`ethtool -K %s lro off rx-gro-hw off`", at.Name, driver, at.Name)
	case errors.Is(cause, unix.EINVAL) && at.MTU > 1500:
		return tooLarge(at, driver)
	case errors.Is(cause, unix.EINVAL), errors.Is(cause, unix.EBUSY):
		return fmt.Sprintf("the driver of %s (%s) refuses it as it is set now; the kernel's log may say why, "+
			"and `ethtool -K %s lro off rx-gro-hw off` may help", at.Name, driver, at.Name)
	}
	return ""
}

func tooLarge(at *netlink.LinkAttrs, driver string) string {
	return fmt.Sprintf("the MTU of %s (%s), %d, or that of its other end, is too large for XDP, which wants a frame in one page: "+
		"`ip link set dev %s mtu 1500`", at.Name, driver, at.MTU, at.Name)
}

// driverName asks for an interface's driver.
func driverName(ifname string) string {
	const unknown = "driver unknown"
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return unknown
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, ifname)
	if err != nil {
		return unknown
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// ProgramName names a loaded program; by its id where it cannot be asked.
func ProgramName(id ebpf.ProgramID) string {
	name, err := programName(id)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("program %d (gone)", id)
	}
	if err != nil || name == "" {
		return fmt.Sprintf("program %d", id)
	}
	return name
}

// programName asks for a program's name, which takes CAP_SYS_ADMIN.
func programName(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}
