package host

import (
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
)

// device is what matters about an interface that routes leave by.
type device struct {
	outward  bool // what is on-link behind it is another machine
	ethernet bool // frames leave by it as they are given to it
	pair     bool // one end of a pair whose other is in another namespace
}

// device looks at an interface, as of the last Refresh: a bridge is asked for
// all its ports, and may have a hundred backends behind it.
func (n *Network) device(ifindex int) (device, error) {
	n.mu.Lock()
	devices := n.devices
	dev, known := devices[ifindex]
	uplink := n.uplinks[ifindex]
	n.mu.Unlock()
	if !known {
		var err error
		if dev, err = look(ifindex); err != nil {
			return device{}, err
		}
		n.mu.Lock()
		devices[ifindex] = dev
		n.mu.Unlock()
	}
	dev.outward = dev.outward || uplink
	return dev, nil
}

// look looks at an interface, and at the ports of a bridge.
func look(ifindex int) (device, error) {
	ifi, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return device{}, fmt.Errorf("look up interface %d: %w", ifindex, err)
	}
	dev := describe(ifi)
	if ifi.Type() != "bridge" {
		return dev, nil
	}
	// A bridge leads out by its ports. One that does makes all of it count as
	// the outside: rewriting the source too often costs the client's address,
	// too seldom costs the connection.
	all, err := netlink.LinkList()
	if err != nil {
		return device{}, fmt.Errorf("list interfaces: %w", err)
	}
	dev.outward = slices.ContainsFunc(all, func(l netlink.Link) bool {
		return l.Attrs().MasterIndex == ifindex && physical(l)
	})
	return dev, nil
}

// describe says what an interface tells of itself.
func describe(l netlink.Link) device {
	at := l.Attrs()
	dev := device{
		outward:  physical(l),
		ethernet: at.EncapType == "ether" && at.Flags&net.FlagLoopback == 0,
	}
	switch l.Type() {
	case "veth", "netkit":
		// What goes straight to the other end passes by a bridge that this
		// end is a port of, with its filters and what it learns.
		dev.pair = dev.ethernet && at.NetNsID >= 0 && at.MasterIndex == 0
	}
	return dev
}

// physical tells whether a device leads to other machines. Tunnels and what
// lies on top of a network card (vlan, bond, macvlan …) do too.
func physical(l netlink.Link) bool {
	switch l.Type() {
	case "veth", "netkit", "dummy", "ifb", "bridge":
		return false
	case "tuntap":
		t, ok := l.(*netlink.Tuntap)
		return !ok || t.Mode != netlink.TUNTAP_MODE_TAP // tap: a virtual machine here
	}
	return true
}
