package host

import (
	"maps"
	"slices"

	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/steering"
)

// Hooks are the interfaces on which our programs are alive, by index. They are
// not changed once they are given away.
type Hooks struct {
	TC  map[int]bool // at tc ingress
	XDP map[int]bool // at XDP, in the place of tc ingress
}

// SetHooks tells where our programs are. Until then no path says that packets
// may pass by the stack, since their answers come back to the hook of the
// backend's own interface, and to nothing else that would mend them. It
// reports whether the hooks are others than before.
func (n *Network) SetHooks(h Hooks) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed = !maps.Equal(n.hooks.TC, h.TC) || !maps.Equal(n.hooks.XDP, h.XDP)
	n.hooks = h
	return changed
}

// RefreshXDP asks the drivers again what they can do, where XDP is in use, and
// reports whether that has changed: a veth can transmit only while the program
// at its other end, in another namespace, makes it.
func (n *Network) RefreshXDP() (changed bool, err error) {
	n.mu.Lock()
	hooks := n.hooks
	n.mu.Unlock()
	var features map[int]loader.XDPFeatures
	if len(hooks.XDP) > 0 {
		indexes := slices.AppendSeq(slices.Collect(maps.Keys(hooks.TC)), maps.Keys(hooks.XDP))
		if features, err = loader.XDPFeaturesOf(indexes...); err != nil {
			return false, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	changed = !maps.Equal(n.features, features)
	n.features = features
	return changed, nil
}

// shorten says which ways past the stack there are.
func (n *Network) shorten(path *steering.Path, dev device) {
	if !dev.ethernet {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	index := int(path.Ifindex)
	path.Redirect = n.hooks.TC[index]
	path.Peer = path.Redirect && dev.pair
	switch {
	case n.hooks.TC[index]:
		path.XDP = n.transmits(index)
	case n.hooks.XDP[index]:
		// Sending back by the interface that a frame came in by is what every
		// driver can.
		path.XDP = len(n.hooks.XDP) == 1 || n.allTransmit()
	}
}

// transmits tells whether an interface takes frames that XDP redirects to it.
// n.mu is held.
func (n *Network) transmits(index int) bool { return n.features[index]&loader.XDPTransmit != 0 }

// allTransmit tells whether XDP can send from each interface with XDP to each
// other, a client's packets and the answers. n.mu is held.
func (n *Network) allTransmit() bool {
	for index := range n.hooks.XDP {
		if !n.transmits(index) {
			return false
		}
	}
	return true
}
