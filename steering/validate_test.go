package steering

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"siskin.dev/siskin/bpf"
)

// The kernel's maps are what a Reconciler takes.
var (
	_ Table[bpf.Tuple, bpf.Frontend] = (*bpf.MapOf[bpf.Tuple, bpf.Frontend])(nil)
	_ Table[uint32, bpf.ServiceName] = (*bpf.MapOf[uint32, bpf.ServiceName])(nil)
	_ Words                          = (*bpf.WordArray[Word])(nil)
	_ Slots                          = (*bpf.MaglevArray)(nil)
)

func TestValidate(t *testing.T) {
	backend := func(s string) Backend { return Backend{Addr: netip.MustParseAddrPort(s), Weight: 1} }
	for _, tc := range []struct {
		name    string
		change  func(*Service)
		field   string // "": no fault
		problem string
	}{
		{"good", func(*Service) {}, "", ""},
		{"name with a dot", func(s *Service) { s.Name = "a.b" }, "metadata.name", "may hold only"},
		{"name with a capital", func(s *Service) { s.Name = "Shop" }, "metadata.name", "begin and end"},
		{"no name", func(s *Service) { s.Name = "" }, "metadata.name", "a name is needed"},
		{"name of 64", func(s *Service) { s.Name = strings.Repeat("a", 64) }, "metadata.name", "63 at most"},
		{"name of 63", func(s *Service) { s.Name = strings.Repeat("a", 63) }, "", ""},
		{"group", func(s *Service) { s.Group = "-" }, "group", "begin and end"},
		{"no frontend", func(s *Service) { s.Frontends = nil }, "spec.frontends", "is empty"},
		{"loopback frontend", func(s *Service) { s.Frontends[0].Addr = netip.MustParseAddrPort("127.0.0.1:80") }, "spec.frontends[0]", "not steered"},
		{"frontend on port 0", func(s *Service) { s.Frontends[0].Addr = netip.MustParseAddrPort("198.18.0.1:0") }, "spec.frontends[0]", "port 0"},
		{"unspecified frontend", func(s *Service) { s.Frontends[0].Addr = netip.MustParseAddrPort("0.0.0.0:80") }, "spec.frontends[0]", "unspecified"},
		{"no address", func(s *Service) { s.Frontends[0].Addr = netip.AddrPort{} }, "spec.frontends[0]", "no address"},
		{"sctp", func(s *Service) { s.Frontends[0].Proto = 132 }, "spec.frontends[0]", "only tcp and udp"},
		{"frontend twice", func(s *Service) { s.Frontends = append(s.Frontends, s.Frontends[0]) }, "spec.frontends[1]", "twice"},
		{"frontend twice in another form", func(s *Service) {
			s.Frontends = append(s.Frontends, Frontend{netip.MustParseAddrPort("[::ffff:198.18.0.10]:80"), TCP})
		}, "spec.frontends[1]", "twice"},
		{"same address, other protocol", func(s *Service) {
			s.Frontends = append(s.Frontends, Frontend{s.Frontends[0].Addr, UDP})
		}, "", ""},
		{"requests over udp", func(s *Service) { s.Frontends[0].Proto, s.Observe = UDP, Requests }, "spec.observe", "no frontend is tcp"},
		{"requests over tcp and udp", func(s *Service) {
			s.Frontends = append(s.Frontends, Frontend{s.Frontends[0].Addr, UDP})
			s.Observe = Requests
		}, "", ""},
		{"no version", func(s *Service) { s.Versions, s.Weights = nil, nil }, "spec.versions", "is empty"},
		{"no stable", func(s *Service) { s.Versions[0].Name = "old" }, "spec.versions", "has no stable"},
		{"six versions", func(s *Service) {
			for _, n := range []string{"b", "c", "d", "e"} {
				s.Versions = append(s.Versions, version(n, "10.1.0.9:1"))
			}
		}, "spec.versions", "four others"},
		{"version twice", func(s *Service) { s.Versions = append(s.Versions, s.Versions[1]) }, "spec.versions.canary", "twice"},
		{"version name", func(s *Service) { s.Versions[1].Name, s.Weights = "B", nil }, "spec.versions.B", "begin and end"},
		{"unknown weight", func(s *Service) { s.Weights["nope"] = 1 }, "spec.weights.nope", "no version nope"},
		{"stable weight", func(s *Service) { s.Weights[Stable] = 1 }, "spec.weights.stable", "remove its weight"},
		{"over 100 %", func(s *Service) {
			s.Versions = append(s.Versions, version("b", "10.1.0.9:1"))
			s.Weights["b"] = 9501
		}, "spec.weights", "100.01% in all"},
		{"100 %", func(s *Service) { s.Weights["canary"] = Whole }, "", ""},
		{"zero weights", func(s *Service) { s.Versions[1].Backends[0].Weight = 0 }, "spec.versions.canary", "weights are zero"},
		{"backend twice", func(s *Service) {
			s.Versions[0].Backends = append(s.Versions[0].Backends, s.Versions[0].Backends[0])
		}, "spec.versions.stable.backends[2]", "twice"},
		{"multicast backend", func(s *Service) { s.Versions[1].Backends = append(s.Versions[1].Backends, backend("224.0.0.1:1")) }, "spec.versions.canary.backends[1]", "multicast"},
		{"broadcast backend", func(s *Service) {
			s.Versions[1].Backends = append(s.Versions[1].Backends, backend("255.255.255.255:1"))
		}, "spec.versions.canary.backends[1]", "broadcast"},
		{"link-local backend", func(s *Service) { s.Versions[1].Backends = append(s.Versions[1].Backends, backend("169.254.1.1:1")) }, "spec.versions.canary.backends[1]", "link-local"},
		{"loopback backend", func(s *Service) { s.Versions[1].Backends = append(s.Versions[1].Backends, backend("127.0.0.1:1")) }, "spec.versions.canary.backends[1]", "loopback"},
		{"backend of another family", func(s *Service) {
			s.Versions[1].Backends = append(s.Versions[1].Backends, backend("[2001:db8::1]:1"))
		}, "spec.versions.canary.backends[1]", "no IPv6 frontend"},
		{"family without a backend", func(s *Service) {
			s.Frontends = append(s.Frontends, Frontend{netip.MustParseAddrPort("[2001:db8::10]:80"), TCP})
			s.Versions[0].Backends = append(s.Versions[0].Backends, backend("[2001:db8::1]:1"))
		}, "spec.versions.canary", "no IPv6 backend"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := shop()
			tc.change(&s)
			faults := Faults([]Service{s})
			if tc.field == "" {
				if len(faults) > 0 {
					t.Fatal(errors.Join(faults...))
				}
				return
			}
			if len(faults) != 1 {
				t.Fatalf("want one fault, got %d: %v", len(faults), errors.Join(faults...))
			}
			var fe *FieldError
			if !errors.As(faults[0], &fe) || fe.Service != s.Name || fe.Field != tc.field || !strings.Contains(fe.Problem, tc.problem) {
				t.Errorf("got %v, want field %s: …%s…", faults[0], tc.field, tc.problem)
			}
		})
	}
}

func TestValidateAcrossServices(t *testing.T) {
	a, b := shop(), shop()
	b.Name = "api"
	err := Validate([]Service{a, b})
	var fe *FieldError
	if !errors.As(err, &fe) || fe.Service != "api" || !strings.Contains(fe.Problem, "belongs to service shop") {
		t.Errorf("one frontend for two services: %v", err)
	}
	if err := Validate([]Service{a, a}); err == nil || !strings.Contains(err.Error(), "another service of this name") {
		t.Errorf("one name for two services: %v", err)
	}
	if err := Validate(nil); err != nil {
		t.Error(err)
	}
}
