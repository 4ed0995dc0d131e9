package bpf_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"siskin.dev/siskin/bpf"
	"siskin.dev/siskin/steering"
)

// A watched service is one of a rig with a release, on one hook and with
// addresses of one family. Its word is number 0, its canary version slot 1.
type watched struct {
	*rig
	family
	program *ebpf.Program // where clients' packets come in
	words   *bpf.WordArray[steering.Word]
	leases  *bpf.Leases
	clients *int // so many were there already
}

// eachHook runs a test on tc and XDP, with IPv4 and IPv6. The rig is that of
// each.
func eachHook(t *testing.T, set map[string]any, test func(t *testing.T, w *watched)) {
	for _, col := range columns() {
		t.Run(col.name, func(t *testing.T) {
			each(t, set, func(t *testing.T, r *rig, f family) {
				test(t, watch(t, r, f, col.attach(r)[ingress]))
			})
		})
	}
}

func watch(t *testing.T, r *rig, f family, program *ebpf.Program) *watched {
	t.Helper()
	words, err := bpf.NewWordArray[steering.Word](r.Words)
	if err != nil {
		t.Fatal(err)
	}
	leases, err := bpf.NewLeases(r.Leases)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := words.Close(); err != nil {
			t.Error(err)
		}
		if err := leases.Close(); err != nil {
			t.Error(err)
		}
	})
	return &watched{rig: r, family: f, program: program, words: words, leases: leases, clients: new(int)}
}

// of returns w for a subtest.
func (w *watched) of(t *testing.T) *watched {
	r, sub := *w.rig, *w
	r.t, sub.rig = t, &r
	return &sub
}

// newcomer returns a client that was not there before.
func (w *watched) newcomer() netip.AddrPort {
	*w.clients++
	n := *w.clients
	b := w.client.Addr().AsSlice()
	if len(b) == 4 {
		b[2], b[3] = byte(n>>8), byte(n)
	} else { // each in a network of its own
		b[6], b[7] = byte(n>>8), byte(n)
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, 40000)
}

// ask sends a client's packet and returns the flow that it has then.
func (w *watched) ask(p packet) bpf.Flow {
	w.t.Helper()
	w.run(w.program, p.frame())
	proto := p.proto
	if proto == 0 {
		proto = tcp
	}
	return w.flow(flowKey(p.src, p.dst, proto))
}

// connect sends a client's SYN.
func (w *watched) connect(client netip.AddrPort) bpf.Flow {
	w.t.Helper()
	return w.ask(packet{src: client, dst: w.vip, flags: syn, seq: isn})
}

// shares gives the canary a share of the word, in the given epoch.
func (w *watched) shares(canary steering.Share, epoch uint8) steering.Word {
	w.t.Helper()
	word, err := steering.MakeWord([4]steering.Share{canary}, epoch)
	if err != nil {
		w.t.Fatal(err)
	}
	w.words.Store(0, word)
	return word
}

// start arms the timer.
func (w *watched) start() {
	w.t.Helper()
	if ret, _ := w.run(w.SiskinStart, packet{src: w.client, dst: w.vip}.frame()); ret != 0 {
		w.t.Fatalf("siskin_start returned %d", ret)
	}
}

// ago is a time of boot that is past, or with a negative duration to come.
func ago(d time.Duration) int64 { return bpf.BootNow() - int64(d) }
