package conduct

import (
	"strings"
	"testing"

	"siskin.dev/siskin/api"
)

const shops = `apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: shop}
spec:
  frontends: ["198.18.0.10:80/tcp"]
  versions:
    stable: {backends: ["10.1.0.2:8080"]}
    canary: {backends: ["10.1.0.4:8080", "10.1.0.5:8080"]}
    other: {backends: ["10.1.0.6:8080"]}
---
apiVersion: siskin.dev/v1alpha1
kind: Service
metadata: {name: cart}
spec:
  frontends: ["198.18.0.11:80/tcp"]
  versions:
    stable: {backends: ["10.2.0.2:8080"]}
    canary: {backends: ["10.2.0.4:8080"]}
`

func readShops(t *testing.T, text string) []*api.Service {
	t.Helper()
	docs, err := api.Read(api.Source{Name: "shops.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	var out []*api.Service
	for _, d := range docs {
		out = append(out, d.Service)
	}
	return out
}

// A finished release starts again when the backends of its version change, and
// with nothing else of its services.
func TestTargetIsTheVersionsOwnBackends(t *testing.T) {
	before := targetOf("canary", readShops(t, shops))
	for _, c := range []struct {
		name, old, new string
		changes        bool
	}{
		{"stable has another", `"10.1.0.2:8080"`, `"10.1.0.2:8080", "10.1.0.3:8080"`, false},
		{"stable is the canary", `"10.1.0.2:8080"`, `"10.1.0.4:8080", "10.1.0.5:8080"`, false},
		{"another version", `"10.1.0.6:8080"`, `"10.1.0.7:8080"`, false},
		{"another order", `"10.1.0.4:8080", "10.1.0.5:8080"`, `"10.1.0.5:8080", "10.1.0.4:8080"`, false},
		{"a backend's weight", `"10.1.0.5:8080"`, `{address: "10.1.0.5:8080", weight: 3}`, false},
		{"a frontend", `80/tcp"]`, `80/tcp", "198.18.0.12:80/tcp"]`, false},
		{"one more", `"10.1.0.5:8080"`, `"10.1.0.5:8080", "10.1.0.7:8080"`, true},
		{"one less", `, "10.1.0.5:8080"`, ``, true},
		{"another of the other service", `"10.2.0.4:8080"`, `"10.2.0.5:8080"`, true},
	} {
		text := strings.Replace(shops, c.old, c.new, 1)
		if text == shops {
			t.Fatalf("%s: nothing was changed", c.name)
		}
		if changed := targetOf("canary", readShops(t, text)) != before; changed != c.changes {
			t.Errorf("%s: changed %v, want %v", c.name, changed, c.changes)
		}
	}
}
