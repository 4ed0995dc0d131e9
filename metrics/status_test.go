package metrics

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"siskin.dev/siskin/steering"
)

func TestFromStatus(t *testing.T) {
	backend := func(id uint32, addr string, state steering.BackendState, retired bool) steering.BackendStatus {
		return steering.BackendStatus{ID: id, Addr: netip.MustParseAddrPort(addr), State: state, Retired: retired}
	}
	got := FromStatus([]steering.ServiceStatus{{
		Name: "checkout",
		Versions: []steering.VersionStatus{
			{Name: "stable", Latency: 4, Share: 9999, Backends: []steering.BackendStatus{
				backend(1, "10.1.0.2:8080", steering.Active, false),
				backend(2, "[2001:db8::2]:8080", steering.Draining, false),
				backend(3, "10.1.0.3:8080", steering.Down, false),
				backend(4, "10.1.0.4:8080", steering.Active, true),
			}},
			{Name: "canary", Latency: 5, Share: 1},
			{Name: "old", Latency: 6, Retired: true, Backends: []steering.BackendStatus{
				backend(5, "10.1.0.5:8080", steering.Active, false),
			}},
		},
	}, {
		Name: "deleted", Retired: true,
		Versions: []steering.VersionStatus{{Name: "stable", Latency: 7}},
	}})
	want := []Service{{
		Name: "checkout",
		Versions: []Version{
			{Name: "stable", Latency: 4, Asked: 0.9999, Backends: []Backend{
				{ID: 1, Address: "10.1.0.2:8080", Up: true},
				{ID: 2, Address: "[2001:db8::2]:8080"},
				{ID: 3, Address: "10.1.0.3:8080"},
				{ID: 4, Address: "10.1.0.4:8080", Up: true, Retired: true},
			}},
			{Name: "canary", Latency: 5, Asked: 0.0001},
			{Name: "old", Latency: 6, Retired: true, Backends: []Backend{
				{ID: 5, Address: "10.1.0.5:8080", Up: true, Retired: true},
			}},
		},
	}, {
		Name:     "deleted",
		Versions: []Version{{Name: "stable", Latency: 7, Retired: true}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("services (-want +got)\n%s", diff)
	}
}
