package bed

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// End is one end of a veth pair.
type End struct {
	Space *Namespace
	Dev   string
	Addrs []string // with prefix length
}

// Connect makes a veth pair between two namespaces, up and with addresses.
func (b *Bed) Connect(near, far End) {
	b.tb.Helper()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: near.Dev, MTU: 1500, TxQLen: 1000},
		PeerName:      far.Dev,
		PeerNamespace: netlink.NsFd(int(far.Space.handle)),
	}
	if err := near.Space.link.LinkAdd(veth); err != nil {
		b.tb.Fatalf("connect %s with %s: %v", near.Space.Role, far.Space.Role, err)
	}
	for _, end := range []End{near, far} {
		end.Space.Up(end.Dev)
		end.Space.Address(end.Dev, end.Addrs...)
	}
}

// Up sets an interface up.
func (n *Namespace) Up(dev string) {
	n.tb.Helper()
	link, err := n.link.LinkByName(dev)
	if err == nil {
		err = n.link.LinkSetUp(link)
	}
	if err != nil {
		n.tb.Fatalf("%s: set %s up: %v", n.Role, dev, err)
	}
}

// MTU sets the largest packet that an interface sends.
func (n *Namespace) MTU(dev string, bytes int) {
	n.tb.Helper()
	link, err := n.link.LinkByName(dev)
	if err == nil {
		err = n.link.LinkSetMTU(link, bytes)
	}
	if err != nil {
		n.tb.Fatalf("%s: set the MTU of %s: %v", n.Role, dev, err)
	}
}

// Bridge makes a bridge of interfaces that are there already.
func (n *Namespace) Bridge(dev string, ports ...string) {
	n.tb.Helper()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: dev}}
	if err := n.link.LinkAdd(bridge); err != nil {
		n.tb.Fatalf("%s: make bridge %s: %v", n.Role, dev, err)
	}
	for _, port := range ports {
		link, err := n.link.LinkByName(port)
		if err == nil {
			err = n.link.LinkSetMaster(link, bridge)
		}
		if err != nil {
			n.tb.Fatalf("%s: put %s on %s: %v", n.Role, port, dev, err)
		}
	}
	n.Up(dev)
}

// Remove removes an interface, and with it the other end of a pair.
func (n *Namespace) Remove(dev string) {
	n.tb.Helper()
	link, err := n.link.LinkByName(dev)
	if err == nil {
		err = n.link.LinkDel(link)
	}
	if err != nil {
		n.tb.Fatalf("%s: remove %s: %v", n.Role, dev, err)
	}
}

// Ifindex returns the index of an interface.
func (n *Namespace) Ifindex(dev string) int {
	n.tb.Helper()
	link, err := n.link.LinkByName(dev)
	if err != nil {
		n.tb.Fatalf("%s: find %s: %v", n.Role, dev, err)
	}
	return link.Attrs().Index
}

func parsePrefix(s string) (netip.Prefix, *net.IPNet, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, nil, fmt.Errorf("prefix: %w", err)
	}
	return p, &net.IPNet{
		IP:   p.Masked().Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}, nil
}

// Sink makes a namespace send what is for an address to a station that is not
// on the link: it crosses the link, can be tapped, and no kernel looks at it.
func (n *Namespace) Sink(dev string, addrs ...netip.Addr) {
	n.tb.Helper()
	for _, addr := range addrs {
		err := n.link.NeighSet(&netlink.Neigh{
			LinkIndex: n.Ifindex(dev), IP: addr.AsSlice(), State: netlink.NUD_PERMANENT,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0xee}, // locally administered
		})
		if err != nil {
			n.tb.Fatalf("%s: send %v nowhere on %s: %v", n.Role, addr, dev, err)
		}
	}
}
