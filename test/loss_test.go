package test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"siskin.dev/siskin/test/bed"
)

// Where one packet in a hundred is lost each way, on either side of the host
// that steers, and so is sent again and out of its order, requests are counted
// within a thousandth of the server's log, and none twice.
func TestRootServersLoss(t *testing.T) {
	sides := []struct {
		name, place string
		network     bed.Network
	}{{"clients", "near", bed.VIPs}, {"backends", "remote", bed.Remotes}}
	askers := []asker{goHTTP1(32, 200, bed.Pages), h2load(32, 8, 6400, bed.Pages)}
	for _, mode := range bothModes() {
		t.Run(mode.name, func(t *testing.T) {
			r, s := mode.open(t)
			r.Client.RetryAfter(20)
			for _, side := range sides {
				place := placeOf(r, side.place)
				place.Space.RetryAfter(20)
				http1, http2 := bothAt(place, 8101), bothAt(place, 8102)
				nginx := place.Space.ServeNginxHTTPD(netip.MustParseAddrPort("127.0.0.1:9000"), http1, http2)
				r.Router.Lose(side.network, 0.01)
				for i, f := range bed.Families() {
					for j, a := range askers {
						service := bed.Service{
							Name: fmt.Sprintf("%s-http%d-%v", side.name, j+1, f), Proto: "tcp",
							Frontends: []netip.AddrPort{netip.AddrPortFrom(f.At(bed.VIPs, 10), uint16(80+j))},
							Stable:    []netip.AddrPort{[][]netip.AddrPort{http1, http2}[j][i]},
						}
						s.Apply(service)
						t.Run(service.Name, func(t *testing.T) { nearly(t, r, s, nginx, a, service) })
						s.Must("delete", "service", service.Name)
					}
				}
				r.Router.Lose(side.network, 0)
			}
		})
	}
}

// nearly wants what was counted to be what the server answered, up to one in a
// thousand.
func nearly(t *testing.T, r *bed.Routed, s *bed.Siskin, server *bed.Httpd, a asker, service bed.Service) {
	sent, before := retransmitted(r), server.Answered()
	began := time.Now()
	said := a.ask(t, r.Client, service.Frontends[0])
	var logged bed.Answered
	s.Await("the server has logged what it answered", func() bool {
		logged = server.Answered().Since(before)
		return logged.Total() >= said.Total()
	})
	if len(logged.Since(said))+len(said.Since(logged)) > 0 {
		t.Errorf("the client was answered %v, the server says %v", said, logged)
	}
	var counted bed.Answered
	missed := func() int { return logged.Total() + counted["unparsed"] - counted.Total() }
	for end := time.Now().Add(bed.Patience); ; time.Sleep(10 * time.Millisecond) {
		counted = countedOf(s, service.Name)
		if missed()*1000 <= logged.Total() || time.Now().After(end) {
			break
		}
	}
	for code, n := range counted {
		if n > logged[code] && code != "unparsed" {
			t.Errorf("of %s %d were counted, the server answered %d", code, n, logged[code])
		}
	}
	if missed()*1000 > logged.Total() || counted.Total() > logged.Total() {
		t.Errorf("the server answered %v, counted were %v", logged, counted)
	}
	t.Logf("of %d answers %d were not counted, %d unparsed; %d segments were sent again, in %v",
		logged.Total(), missed(), counted["unparsed"], retransmitted(r)-sent, time.Since(began))
}
