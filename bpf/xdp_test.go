package bpf_test

import (
	"strings"
	"testing"

	"siskin.dev/siskin/bpf"
)

// The programs for XDP are loaded with the maps of the others in the place of
// their own, so all they have must be there and of the same make.
func TestXDPMapsAreThoseOfTC(t *testing.T) {
	tc, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	xdp, err := bpf.XDPSpec()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range xdp.Maps {
		if strings.HasPrefix(name, ".") {
			continue // constants, each object's own
		}
		want := tc.Maps[name]
		if want == nil {
			t.Errorf("map %s is in no other object", name)
			continue
		}
		if m.Type != want.Type || m.KeySize != want.KeySize || m.ValueSize != want.ValueSize || m.Flags != want.Flags {
			t.Errorf("map %s is %v, the other object has %v", name, m, want)
		}
	}
	for _, name := range []string{"siskin_xdp", "siskin_xdp_empty"} {
		if xdp.Programs[name] == nil {
			t.Errorf("no program %s", name)
		}
	}
}
