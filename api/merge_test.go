package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func oneService(t *testing.T, text string) *Service {
	t.Helper()
	docs, err := Read(Source{Name: "f", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return docs[0].Service
}

// promoted returns the service after its version another became stable.
func promoted(t *testing.T, text string) *Service {
	s := oneService(t, text)
	s.Spec.Versions["stable"] = s.Spec.Versions["another"]
	return s
}

func TestMergeKeepsAPromotion(t *testing.T) {
	base := minimal("checkout", "198.18.0.10:80/tcp")
	const old, canary, next = "10.1.0.2:8080", "10.1.0.3:8080", "10.1.0.9:8080"
	edit := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(base) }
	for name, c := range map[string]struct {
		document string
		stable   string
		warns    string
		diff     []string
	}{
		"the same again": {base, canary, "", nil},
		"another field": {base + "\n  affinity: connection", canary, "",
			[]string{"- spec.affinity: client", "+ spec.affinity: connection"}},
		"what is observed": {base + "\n  observe: connections", canary, "",
			[]string{"- spec.observe: auto", "+ spec.observe: connections"}},
		"the next canary": {edit(canary, next), canary, "",
			[]string{"- spec.versions.another.backends[0]: " + canary, "+ spec.versions.another.backends[0]: " + next}},
		"stable catches up": {edit(old, canary), canary, "", nil},
		"another stable": {edit(old, next), next, "spec.versions.stable: was promoted to",
			[]string{"- spec.versions.stable.backends[0]: " + canary, "+ spec.versions.stable.backends[0]: " + next}},
		"the canary goes": {edit("\n    another: {backends: [\""+canary+"\"]}", "", "\n  weights: {another: 5%}", ""), canary, "",
			[]string{"- spec.versions.another.backends[0]: " + canary, "- spec.weights.another: 5%"}},
		"a new version": {edit("\n  weights", "\n    third: {backends: [\""+next+"\"]}\n  weights"), canary, "",
			[]string{"+ spec.versions.third.backends[0]: " + next}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Merge(oneService(t, base), promoted(t, base), oneService(t, c.document))
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Service.Spec.Versions["stable"].Backends[0].Address.String(); got != c.stable {
				t.Errorf("stable is %s, want %s", got, c.stable)
			}
			if warned := strings.Join(m.Warnings, "\n"); c.warns == "" && warned != "" || !strings.Contains(warned, c.warns) {
				t.Errorf("warnings %q, want %q", warned, c.warns)
			}
			if diff := cmp.Diff(c.diff, m.Diff); diff != "" {
				t.Errorf("diff (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMergeWithoutAPastTakesTheDocument(t *testing.T) {
	base := minimal("checkout", "198.18.0.10:80/tcp")
	m, err := Merge(nil, nil, oneService(t, base))
	if err != nil || len(m.Warnings) != 0 || len(m.Diff) == 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	m, err = Merge(nil, promoted(t, base), oneService(t, base))
	if err != nil || m.Service.Spec.Versions["stable"].Backends[0].Address.String() != "10.1.0.2:8080" {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestMergeOfWhatDidNotDivergeIsTheDocument: without a promotion between, an
// apply does what it did before there were any.
func TestMergeOfWhatDidNotDivergeIsTheDocument(t *testing.T) {
	a := oneService(t, minimal("checkout", "198.18.0.10:80/tcp"))
	b := oneService(t, strings.Replace(minimal("checkout", "198.18.0.11:80/tcp"), "5%", "7%", 1)+
		"\n  healthCheck: {http: {path: /x}}\n  connectionsOnRollback: drain")
	for _, c := range [][2]*Service{{a, b}, {b, a}, {a, a}} {
		m, err := Merge(c[0], c[0], c[1])
		if err != nil || len(m.Warnings) != 0 {
			t.Fatalf("%q, %v", m.Warnings, err)
		}
		if diff, err := Diff(c[1].Spec, m.Service.Spec); err != nil || len(diff) != 0 {
			t.Errorf("%q, %v", diff, err)
		}
	}
}
