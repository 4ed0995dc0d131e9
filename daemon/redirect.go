package daemon

import (
	"siskin.dev/siskin/host"
)

// tellHooks tells the network where our programs are alive, which decides by
// where packets may pass by the stack. What that changes is in the backends'
// entries after the next reconcile: so a hook is there before an entry counts
// on it, and where a daemon takes one away itself, no entry does any more.
// d.hooks is held.
func (d *daemon) tellHooks() {
	attached := d.loader.Attached()
	d.attached.Store(int32(len(attached)))
	if d.opts.NeverRedirect {
		return
	}
	h := host.Hooks{TC: make(map[int]bool), XDP: make(map[int]bool)}
	for _, i := range attached {
		switch {
		case i.Broken:
		case i.XDP:
			h.XDP[i.Ifindex] = true
		default:
			h.TC[i.Ifindex] = true
		}
	}
	if d.network.SetHooks(h) {
		d.hooksMoved.Store(true)
	}
	moved, err := d.network.RefreshXDP()
	if err != nil {
		d.once("xdp features", err, func() { d.log.Warn("cannot tell where XDP may redirect to", "error", err) })
		return
	}
	d.forgetOnce("xdp features")
	if moved {
		d.hooksMoved.Store(true)
	}
}

// followHooks reconciles once more where the hooks are others than those that
// the last time went by. writing is held.
func (d *daemon) followHooks() error {
	if !d.hooksMoved.Load() {
		return nil
	}
	return d.reconcile()
}
