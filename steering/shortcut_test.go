package steering

import (
	"errors"
	"net/netip"
	"testing"

	"siskin.dev/siskin/bpf"
)

type pathFunc func(netip.Addr) (Path, error)

func (f pathFunc) Path(a netip.Addr) (Path, error) { return f(a) }

// What may be passed by is in a backend's entry as the path says it, and gone
// when the route is.
func TestShortcutsFollowThePath(t *testing.T) {
	k := newFakeKernel(t)
	var path Path
	var lost error
	r := New(k.maps(), pathFunc(func(netip.Addr) (Path, error) { return path, lost }), newTestReconciler(k).log)
	for _, tc := range []struct {
		path Path
		lost error
		want uint8
	}{
		{path: Path{Ifindex: 4}},
		{path: Path{Ifindex: 4, Redirect: true}, want: bpf.BackendRedirect},
		{path: Path{Ifindex: 4, Redirect: true, Peer: true}, want: bpf.BackendRedirect | bpf.BackendPeer},
		{path: Path{Remote: true, Ifindex: 4, Redirect: true, XDP: true}, want: bpf.BackendRemote | bpf.BackendRedirect | bpf.BackendXDP},
		{lost: errors.New("no route"), want: bpf.BackendRemote},
		{path: Path{Ifindex: 5, XDP: true}, want: bpf.BackendXDP},
		{path: Path{Host: true}, want: bpf.BackendHost},
	} {
		path, lost = tc.path, tc.lost
		must(t, r.Update([]Service{shop()}))
		for _, b := range k.backs.m {
			if got := b.Flags &^ bpf.BackendShared; got != tc.want {
				t.Errorf("%+v, %v: flags %d, want %d", tc.path, tc.lost, got, tc.want)
			}
		}
	}
}
