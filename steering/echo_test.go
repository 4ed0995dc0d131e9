package steering

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"siskin.dev/siskin/bpf"
)

func (k *fakeKernel) answers() []string {
	var out []string
	for key := range k.echoes.m {
		out = append(out, key.Netip().String())
	}
	slices.Sort(out)
	return out
}

func wantAnswers(t *testing.T, k *fakeKernel, what string, want ...string) {
	t.Helper()
	if got := k.answers(); !slices.Equal(got, want) {
		t.Errorf("%s: ping is answered at %v, want %v", what, got, want)
	}
}

func TestEchoesAreOfVirtualAddresses(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	virtual := service("virtual", "198.18.0.10:80", version(Stable, "10.1.0.2:80", "[2001:db8:1::2]:80"))
	virtual.Frontends = append(virtual.Frontends,
		Frontend{netip.MustParseAddrPort("198.18.0.10:443"), TCP}, Frontend{netip.MustParseAddrPort("[2001:db8::1]:80"), UDP})
	draining := service("draining", "198.18.0.11:80", version(Stable, "10.1.0.2:81"))
	draining.Versions[0].Backends[0].State = Draining
	for _, c := range []struct {
		name string
		s    Service
		want []string
	}{
		{"one of each family, two ports", virtual, []string{"198.18.0.10", "2001:db8::1"}},
		{"no backend is active", draining, []string{"198.18.0.11"}},
		{"the host's own address", service("host", "198.18.0.12:80", version(Stable, "10.1.0.2:80")), nil},
		{"a real server's", service("real", "198.18.0.14:80", version(Stable, "198.18.0.14:80", "10.1.0.2:80")), nil},
		{"another port of a real server", service("port", "198.18.0.14:81", version(Stable, "198.18.0.14:80")), nil},
	} {
		must(t, r.Update([]Service{c.s}))
		must(t, r.Prune())
		wantAnswers(t, k, c.name, c.want...)
	}
	must(t, r.Update(nil))
	wantAnswers(t, k, "deleted, and not pruned yet")
}

// A real server that was a backend is its address's owner until it is
// forgotten; then the address is virtual again.
func TestEchoReturnsWhenAnOwnerIsGone(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	s := service("shop", "198.18.0.10:80", version(Stable, "198.18.0.10:8080", "10.1.0.2:80"))
	must(t, r.Update([]Service{s}))
	wantAnswers(t, k, "a backend is there")
	var id uint32
	for i, b := range k.backs.m {
		if backendAddr(b) == s.Versions[0].Backends[0].Addr {
			id = i
		}
	}
	k.flows[id] = 1
	s.Versions[0].Backends = s.Versions[0].Backends[1:]
	must(t, r.Update([]Service{s}))
	must(t, r.Prune())
	wantAnswers(t, k, "it has connections")
	clear(k.flows)
	must(t, r.Prune())
	wantAnswers(t, k, "it is forgotten", "198.18.0.10")
}

// What another daemon left is taken over, and what it had no time to write or
// remove is done by the next Update or Prune.
func TestEchoesAfterRestart(t *testing.T) {
	k := newFakeKernel(t)
	s := service("shop", "198.18.0.10:80", version(Stable, "10.1.0.2:80"))
	must(t, newTestReconciler(k).Update([]Service{s}))
	before := maps.Clone(k.echoes.m)

	again := newTestReconciler(k)
	must(t, again.Restore())
	writes := k.writes
	must(t, again.Update([]Service{s}))
	must(t, again.Prune())
	if k.writes != writes || !maps.Equal(k.echoes.m, before) {
		t.Errorf("%d writes after a restart with nothing new, %v", k.writes-writes, k.echoes.m)
	}

	clear(k.echoes.m)
	k.echoes.m[bpf.AddrFrom(netip.MustParseAddr("198.18.0.99"))] = answering
	again = newTestReconciler(k)
	must(t, again.Restore())
	must(t, again.Prune())
	wantAnswers(t, k, "half done before", "198.18.0.10")
}

func TestEchoFaultIsRetried(t *testing.T) {
	k := newFakeKernel(t)
	r := newTestReconciler(k)
	s := service("shop", "198.18.0.10:80", version(Stable, "10.1.0.2:80"))
	must(t, r.Update([]Service{s}))
	for i, desired := range [][]Service{nil, {s}} {
		k.fault = func() bool { return true }
		if err := r.Update(desired); !errors.Is(err, errFault) {
			t.Errorf("a fault was kept secret: %v", err)
		}
		k.fault = func() bool { return false }
		must(t, r.Update(desired))
		wantAnswers(t, k, fmt.Sprint("retry ", i), [][]string{nil, {"198.18.0.10"}}[i]...)
	}
}
