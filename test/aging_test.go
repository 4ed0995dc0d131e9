package test

import (
	"net/netip"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// The kernel forgets what is over, and books handshakes that nobody answered,
// while no daemon is there to help it. Patience here is the kernel's: a
// handshake is given up 20 s after its last SYN.
func TestRootAging(t *testing.T) {
	t.Parallel()
	const closed, patience = 200, 32 * time.Second
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	f := bed.V4
	lively := plain(r, f, "lively", 10)
	at := func(vip, host int, port uint16, name string) bed.Service {
		return bed.Service{
			Name: name, Proto: "tcp", Frontends: []netip.AddrPort{netip.AddrPortFrom(f.At(bed.VIPs, vip), 80)},
			Stable: []netip.AddrPort{netip.AddrPortFrom(f.At(bed.Nearby, host), port)},
		}
	}
	// A server that drops every SYN, one that rejects it, and an address that
	// nobody has.
	failing := []bed.Service{at(11, 2, 8090, "silent"), at(12, 2, 8091, "rejecting"), at(13, 99, 8080, "nobody")}
	r.Near.Run(`table ip hole { chain input {
	type filter hook input priority 0
	tcp dport 8090 drop
	tcp dport 8091 reject with icmp type host-unreachable
}; }
`, "nft", "-f", "-")
	s.Apply(append(failing, lively)...)

	open, err := r.Client.TalkTo(netip.AddrPortFrom(f.Visitor(0), 0), lively.Frontends[0])
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for i := range closed {
		if _, err := r.Client.AskTCP(netip.AddrPortFrom(f.Visitor(i), 0), lively.Frontends[0]); err != nil {
			t.Fatal(err)
		}
	}
	failed := make(chan error)
	for _, service := range failing {
		go func() {
			conn, err := r.Client.Dial("tcp", netip.AddrPortFrom(f.Visitor(1), 0), service.Frontends[0])
			if err == nil {
				conn.Close()
			}
			failed <- err
		}()
	}
	for range failing {
		if err := <-failed; err == nil {
			t.Fatal("the bed is wrong: a connection to nobody was made")
		}
	}
	entries := func() float64 {
		n, err := s.Scrape().Sum("siskin_flow_table_entries")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := entries(); n < closed {
		t.Errorf("%.0f flows are in the table, want the %d that were closed a moment ago", n, closed)
	}
	s.Kill()
	time.Sleep(patience) // the kernel is alone: nobody can be asked
	s.Start()
	if n := entries(); n != 1 {
		t.Errorf("%.0f flows are in the table after %v, want the open one", n, patience)
	}
	if _, err := open.Ask("who"); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	m := s.Scrape()
	check := func(want float64, name string, labels ...string) {
		t.Helper()
		if n, err := m.Sum(name, labels...); err != nil || n != want {
			t.Errorf("%s%v is %v (%v), want %v", name, labels, n, err, want)
		}
	}
	for _, service := range failing {
		check(1, "siskin_connections_total", "service", service.Name)
		check(0, "siskin_connections_active", "service", service.Name)
		check(1, "siskin_connection_errors_total", "service", service.Name)
	}
	check(1, "siskin_connection_errors_total", "service", "silent", "reason", "timeout")
	check(1, "siskin_connection_errors_total", "service", "rejecting", "reason", "unreachable")
}
