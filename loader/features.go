package loader

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// XDPFeatures are what an interface can do with XDP now (enum netdev_xdp_act
// of linux/netdev.h).
type XDPFeatures uint64

const (
	// XDPBasic: it runs programs in native mode, and sends back what they
	// return XDP_TX for.
	XDPBasic XDPFeatures = 1
	// XDPTransmit: it sends what programs on other interfaces redirect to it.
	XDPTransmit XDPFeatures = 4
)

// Of the netdev family (linux/netdev.h).
const (
	netdevFamily     = "netdev"
	netdevDevGet     = 1 // NETDEV_CMD_DEV_GET
	netdevDevIfindex = 1 // NETDEV_A_DEV_IFINDEX
	netdevDevXDP     = 3 // NETDEV_A_DEV_XDP_FEATURES
)

// XDPFeaturesOf asks the kernel what interfaces of this network namespace can
// do with XDP, without trying it. Those that are gone can do nothing. Before
// Linux 6.3 the kernel does not know, and the result is nil.
func XDPFeaturesOf(indexes ...int) (map[int]XDPFeatures, error) {
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the netdev family: %w", err)
	}
	out := make(map[int]XDPFeatures)
	for _, index := range indexes {
		// One by one: the library takes the first answer for the last, since
		// in this family they are not marked as parts of many.
		if out[index], err = xdpFeatures(family, index); err != nil {
			return nil, fmt.Errorf("ask what interface %d can do with XDP: %w", index, err)
		}
	}
	return out, nil
}

func xdpFeatures(family *netlink.GenlFamily, index int) (XDPFeatures, error) {
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	// The last two bytes are reserved, and refused unless they are zero, which
	// nl.Genlmsg leaves to chance.
	header := []byte{netdevDevGet, uint8(family.Version), 0, 0}
	req.AddRawData(append(header, nl.NewRtAttr(netdevDevIfindex, nl.Uint32Attr(uint32(index))).Serialize()...))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if errors.Is(err, unix.ENODEV) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, m := range msgs {
		if len(m) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type == netdevDevXDP && len(a.Value) == 8 {
				return XDPFeatures(nl.NativeEndian().Uint64(a.Value)), nil
			}
		}
	}
	return 0, errors.New("the answer does not say it")
}
