package bpf_test

import (
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkPacket measures what one packet costs: BPF_PROG_TEST_RUN with a
// fresh packet each, the mean of the lowest 99 % (the clock steps, so medians
// jump), minus an empty program measured in turn with it. The metric that
// counts is net-ns/packet; ns/op is the system call.
func BenchmarkPacket(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: loads BPF programs")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f := families()[0]
	const many = 100_000
	clients := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(64 + i>>14), byte(i >> 6)}), uint16(20000+i%64))
	}
	established := func(client netip.AddrPort) []byte {
		return packet{src: client, dst: f.vip, flags: ack, seq: isn + 1, ack: serverISN + 1}.frame()
	}
	foreign := packet{src: f.client, dst: netip.AddrPortFrom(f.elsewhere.Addr(), 5432), flags: ack}.frame()
	samePort := packet{src: f.client, dst: f.elsewhere, flags: ack}.frame()
	reply := packet{src: f.stable, dst: f.client, flags: ack, seq: serverISN + 1}.frame()

	cases := []struct {
		name    string
		flows   int
		program func(*rig) *ebpf.Program
		frame   func(i int) []byte
	}{
		{"foreign", many, func(r *rig) *ebpf.Program { return r.SiskinIngress }, func(int) []byte { return foreign }},
		{"foreign-same-port", many, func(r *rig) *ebpf.Program { return r.SiskinIngress }, func(int) []byte { return samePort }},
		{"hot", 1, func(r *rig) *ebpf.Program { return r.SiskinIngress }, func(int) []byte { return established(clients(0)) }},
		{"reply", 1, func(r *rig) *ebpf.Program { return r.SiskinEgress }, func(int) []byte { return reply }},
		{"scattered", many, func(r *rig) *ebpf.Program { return r.SiskinIngress },
			func(i int) []byte { return established(clients(i * 7919 % many)) }},
		{"new", 0, func(r *rig) *ebpf.Program { return r.SiskinIngress },
			func(i int) []byte {
				return packet{src: clients(i), dst: f.vip, flags: syn, seq: isn}.frame()
			}},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(&testing.T{}, map[string]any{"flows": uint32(1 << 20)})
			defer r.close()
			r.backend(1, f.stable, backendOptions{frontend: 1})
			r.frontend(1, f.vip, unix.IPPROTO_TCP, 0, 1)
			for i := range c.flows {
				r.SiskinIngress.Test(packet{src: clients(i), dst: f.vip, flags: syn, seq: isn}.frame())
			}
			if c.name == "reply" {
				r.SiskinIngress.Test(packet{src: f.client, dst: f.vip, flags: syn, seq: isn}.frame())
			}
			program := c.program(r)
			var took, floor []time.Duration
			for i := 0; b.Loop(); i++ {
				frame := c.frame(i)
				took = append(took, once(b, program, frame))
				floor = append(floor, once(b, r.SiskinEmpty, frame))
			}
			b.ReportMetric(trimmed(took)-trimmed(floor), "net-ns/packet")
		})
	}
}

func once(b *testing.B, p *ebpf.Program, frame []byte) time.Duration {
	_, took, err := p.Benchmark(frame, 1, nil)
	if err != nil {
		b.Fatal(err)
	}
	return took
}

// trimmed is the mean of the lowest 99 %, in nanoseconds.
func trimmed(all []time.Duration) float64 {
	slices.Sort(all)
	all = all[:max(1, len(all)*99/100)]
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return float64(sum) / float64(len(all))
}
