package metrics

import (
	"bytes"
	"encoding/binary"
	"testing"

	"siskin.dev/siskin/bpf"
)

// A field that the kernel counts and the sum forgets would look like silence.
func TestSumTalliesForgetsNoField(t *testing.T) {
	ones := bpf.Tally{}
	raw := make([]byte, binary.Size(ones))
	for i := range len(raw) / 8 {
		binary.NativeEndian.PutUint64(raw[8*i:], uint64(i+1))
	}
	if _, err := binary.Decode(raw, binary.NativeEndian, &ones); err != nil {
		t.Fatal(err)
	}
	sum := sumTallies([]bpf.Tally{ones, ones, ones})
	sum.SelectedNs *= 3 // a time
	var got bytes.Buffer
	if err := binary.Write(&got, binary.NativeEndian, sum); err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) / 8 {
		if n := binary.NativeEndian.Uint64(got.Bytes()[8*i:]); n != 3*uint64(i+1) {
			t.Errorf("word %d of the tally: %d, want %d", i, n, 3*(i+1))
		}
	}
}
