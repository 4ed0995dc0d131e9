package loader

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSizesFor(t *testing.T) {
	tests := []struct {
		name               string
		services, backends uint32
		want               Sizes
	}{
		{"nothing is asked for", 0, 0, Sizes{}},
		{"services", 511, 0, Sizes{Services: 512, Frontends: 1023, Words: 1023, Versions: 1023}},
		{"backends", 0, 4095, Sizes{Backends: 4096, Maglev: 1 << 20}}, // the defaults
		{"the most", MaxServices, MaxBackends, Sizes{
			Services: 1<<20 + 1, Frontends: 1<<21 + 1, Words: 1<<21 + 1, Versions: 1<<21 + 1,
			Backends: 1 << 22, Maglev: 1 << 30,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := SizesFor(tt.services, tt.backends)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, n := range []uint32{MaxServices + 1, math.MaxUint32} {
		if _, err := SizesFor(n, 0); err == nil {
			t.Errorf("%d services are possible", n)
		}
	}
	if _, err := SizesFor(0, MaxBackends+1); err == nil {
		t.Error("too many backends are possible")
	}
}
