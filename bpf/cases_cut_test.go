package bpf_test

import (
	"bytes"
	"slices"
	"testing"

	"siskin.dev/siskin/bpf"
)

// TestRootCutAtEveryByte ends steered packets after each of their bytes: one
// that is shorter than its headers say passes as it is and is counted.
func TestRootCutAtEveryByte(t *testing.T) {
	for _, col := range columns() {
		for _, f := range families() {
			t.Run(col.name+"/"+f.name, func(t *testing.T) {
				s := newStage(t, wide, f)
				s.at[client] = clientOf(f, 1, 0)
				opened(vip, stable)(s)
				s.send(ingress, someUDP)
				program := col.attach(s.rig)[ingress]
				for _, k := range []sketch{aSYN, someTCP, someUDP} {
					whole := k.bytes(s)
					for n := shortest(col, f); n < len(whole); n++ {
						cutAt(t, s, col, n, whole, func() (uint32, []byte) { return s.run(program, whole[:n]) })
					}
				}
			})
		}
	}
}

// smallest is the shortest frame that the kernel's test run takes.
func smallest(f family) int {
	if f.client.Addr().Is6() {
		return 14 + 40
	}
	return 14 + 20
}

// shortest is the same for a column: on XDP anything that has an EtherType.
func shortest(col column, f family) int {
	if col.name == "XDP" {
		return 14
	}
	return smallest(f)
}

func cutAt(t *testing.T, s *scene, col column, n int, whole []byte, run func() (uint32, []byte)) {
	t.Helper()
	before := s.reason(bpf.Pass, "truncated")
	verdict, out := run()
	if verdict != col.passed || !bytes.Equal(out, whole[:n]) {
		t.Errorf("%d of %d bytes: verdict %d\n in   %s\n got  %s", n, len(whole), int32(verdict), shown(whole[:n]), shown(out))
	}
	if got := s.reason(bpf.Pass, "truncated") - before; got != 1 {
		t.Errorf("%d of %d bytes: counted %d times as truncated", n, len(whole), got)
	}
}

// TestRootQuotedAtEveryByte cuts the packet that an ICMP error quotes after
// each of its bytes: from eight bytes behind its IP header on (RFC 792) it is
// translated, and every checksum that is there comes out right.
func TestRootQuotedAtEveryByte(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			s := newStage(t, wide, f)
			s.at[client] = clientOf(f, 1, 0)
			opened(vip, stable)(s)
			s.send(ingress, someUDP)
			for _, k := range []sketch{someTCP, someUDP} {
				for n := range len(k.bytes(s)) - smallest(f) + 1 {
					if n == 17 && k.proto != udp {
						continue // half a TCP checksum: either half will do
					}
					about := k.fromTo(client, stable)
					in := complaint{middle, client, 0, about, n}.bytes(s)
					want := in
					if n >= 8 {
						want = complaint{vip, client, 0, k, n}.bytes(s)
					}
					s.expect(s.SiskinEgress, "to the client", slices.Clone(in), want)
				}
			}
		})
	}
}
