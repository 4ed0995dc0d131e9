package bed

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"siskin.dev/siskin/api"
)

// Service is a document of kind Service with one version beside stable.
type Service struct {
	Name      string
	Proto     string // "tcp" or "udp", of all frontends
	Frontends []netip.AddrPort
	Stable    []netip.AddrPort
	Canary    []netip.AddrPort // none: there is no canary
	Affinity  string           // "": the default
	SourceNAT string           // "": the default
	Observe   string           // "": the default
	Weight    string           // of the canary at the start; "": not written
	Health    string           // the healthCheck, as a YAML flow mapping; "": none

	OnRollback string // connectionsOnRollback; "": the default
}

// YAML writes the document.
func (s Service) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: siskin.dev/v1alpha1\nkind: Service\nmetadata: {name: %s}\nspec:\n  frontends:\n", s.Name)
	for _, f := range s.Frontends {
		fmt.Fprintf(&b, "  - %q\n", f.String()+"/"+s.Proto)
	}
	if s.Affinity != "" {
		fmt.Fprintf(&b, "  affinity: %s\n", s.Affinity)
	}
	if s.SourceNAT != "" {
		fmt.Fprintf(&b, "  sourceNAT: %s\n", s.SourceNAT)
	}
	if s.Observe != "" {
		fmt.Fprintf(&b, "  observe: %s\n", s.Observe)
	}
	if s.OnRollback != "" {
		fmt.Fprintf(&b, "  connectionsOnRollback: %s\n", s.OnRollback)
	}
	b.WriteString("  versions:\n")
	for _, v := range []struct {
		name     string
		backends []netip.AddrPort
	}{{"stable", s.Stable}, {"canary", s.Canary}} {
		if len(v.backends) == 0 {
			continue
		}
		fmt.Fprintf(&b, "    %s:\n      backends:\n", v.name)
		for _, a := range v.backends {
			fmt.Fprintf(&b, "      - %q\n", a)
		}
	}
	if s.Weight != "" {
		fmt.Fprintf(&b, "  weights: {canary: %s}\n", s.Weight)
	}
	if s.Health != "" {
		fmt.Fprintf(&b, "  healthCheck: %s\n", s.Health)
	}
	return b.String()
}

// Documents writes several services as one file.
func Documents(services ...Service) string {
	docs := make([]string, len(services))
	for i, s := range services {
		docs[i] = s.YAML()
	}
	return strings.Join(docs, "---\n")
}

// Apply applies services, and fails the test if they are refused.
func (s *Siskin) Apply(services ...Service) {
	s.bed.tb.Helper()
	s.Must("apply", "-f", s.bed.Write("services.yaml", Documents(services...)))
}

// Weight sets the share of a service's canary ("5%") and tells when the
// kernel had it.
func (s *Siskin) Weight(service, percent string) api.WeightResult {
	s.bed.tb.Helper()
	var r api.WeightResult
	s.JSON(&r, "weight", service, "canary="+percent)
	return r
}

// View returns what `siskin get services NAME` shows.
func (s *Siskin) View(service string) api.ServiceView {
	s.bed.tb.Helper()
	var views []api.ServiceView
	s.JSON(&views, "get", "services", service)
	if len(views) != 1 || views[0].Name != service {
		s.bed.tb.Fatalf("get services %s shows %d services", service, len(views))
	}
	return views[0]
}

// Version returns one version of a service as `siskin get services` shows it.
func (s *Siskin) Version(service, version string) api.VersionView {
	s.bed.tb.Helper()
	for _, v := range s.View(service).Versions {
		if v.Name == version {
			return v
		}
	}
	s.bed.tb.Fatalf("service %s has no version %s", service, version)
	return api.VersionView{}
}

// Await polls until the condition holds: the kernel books the end of a
// connection when its last packet passes, a moment after the programs at its
// ends know.
func (s *Siskin) Await(what string, holds func() bool) {
	s.bed.tb.Helper()
	for end := time.Now().Add(Patience); !holds(); {
		if time.Now().After(end) {
			s.bed.tb.Errorf("not after %v: %s", Patience, what)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
