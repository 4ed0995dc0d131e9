package test

import (
	"net/netip"
	"testing"

	"siskin.dev/siskin/test/bed"
)

// A webServer is one that counts what it answers, at an address of each family,
// and who asks it.
type webServer struct {
	name     string
	place    string
	port     uint16
	answered func() bed.Answered
	askers   []asker
}

// bothAt is a port of a place in both families.
func bothAt(p bed.Place, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for _, f := range bed.Families() {
		out = append(out, netip.AddrPortFrom(f.At(p.Net, p.N), port))
	}
	return out
}

// webServers starts one of each kind. Those of HTTP/2 alone have a port of
// their own.
func webServers(r *bed.Routed) []webServer {
	at := func(place string, port uint16) []netip.AddrPort { return bothAt(placeOf(r, place), port) }
	behind := netip.MustParseAddrPort("127.0.0.1:9000")
	r.Near.ServeCounted(behind)
	r.Remote.ServeCounted(behind)
	nginx := r.Near.ServeNginxHTTPD(behind, at("near", 8101), at("near", 8102))
	haproxy := r.Remote.ServeHaproxyHTTPD(behind, at("remote", 8103))
	apache := r.Remote.ServeApacheHTTPD(behind, at("remote", 8104))
	own := r.Near.ServeCounted(at("near", 8105)...)
	calls := r.Near.ServeGRPC(at("near", 8106)...)
	return []webServer{
		{"nginx", "near", 8101, nginx.Answered, []asker{wrk(4, 110, 1), wrk(4, 132, 6), curl(), goHTTP1(4, 66, bed.Paths)}},
		{"nginx-h2", "near", 8102, nginx.Answered, []asker{h2load(4, 32, 330, bed.Paths), curl("--http2-prior-knowledge")}},
		{"haproxy", "remote", 8103, haproxy.Answered, []asker{
			wrk(4, 110, 1), h2load(4, 8, 330, bed.Paths, "--h1"), curl(), h2load(4, 32, 330, bed.Paths), curl("--http2-prior-knowledge"), goHTTP2(20, 22, bed.Paths),
		}},
		{"apache", "remote", 8104, apache.Answered, []asker{
			wrk(4, 66, 1, "-H", "Connection: close"), curl(), h2load(4, 32, 330, bed.Paths), curl("--http2-prior-knowledge"), curl("--http2"),
		}},
		{"go", "near", 8105, own.Answered, []asker{
			wrk(4, 132, 6), curl(), goClosing(4, 66, bed.Paths), goHTTP1(4, 66, bed.Paths), h2load(4, 100, 330, bed.Paths), curl("--http2-prior-knowledge"), goHTTP2(20, 22, bed.Paths),
		}},
		{"grpc-go", "near", 8106, calls.Answered, []asker{goGRPC(8, 5)}},
	}
}

// A hookMode is where siskin's programs are.
type hookMode struct {
	name string
	tc   []string
	args []string
}

func bothModes() []hookMode {
	return []hookMode{{"tc", []string{"up0"}, nil}, {"XDP", nil, []string{"--xdp", "up0"}}}
}

// open makes a bed in which nothing is lost and nothing overtakes.
func (m hookMode) open(t *testing.T) (*bed.Routed, *bed.Siskin) {
	t.Helper()
	r := bed.NewRouted(bed.New(t))
	if m.tc == nil {
		r.FullSums()
		r.Router.TakeXDP("host")
	}
	r.QueueByFlow()
	r.Windows(64 << 10)
	return r, steer(t, r.Bed, r.Host, m.tc, m.args...)
}

// What siskin counts of requests is what servers log, whoever they are and
// whoever asks, to the last one.
func TestRootServers(t *testing.T) {
	for _, mode := range bothModes() {
		t.Run(mode.name, func(t *testing.T) {
			r, s := mode.open(t)
			servers := webServers(r)
			for _, f := range bed.Families() {
				for i, server := range servers {
					place := placeOf(r, server.place)
					name := server.name + "-" + f.String()
					frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10+i), 80)
					s.Apply(bed.Service{
						Name: name, Proto: "tcp", Frontends: []netip.AddrPort{frontend},
						Stable: []netip.AddrPort{netip.AddrPortFrom(f.At(place.Net, place.N), server.port)},
					})
					for _, a := range server.askers {
						t.Run(name+"/"+a.name, func(t *testing.T) { server.check(t, r, s, a, name, frontend) })
					}
				}
			}
		})
	}
}

// check asks again where the machine was so busy that the link lost something:
// what holds then is for TestRootServersLoss.
func (w webServer) check(t *testing.T, r *bed.Routed, s *bed.Siskin, a asker, service string, to netip.AddrPort) {
	for attempt := 1; ; attempt++ {
		sent := retransmitted(r)
		err := w.counted(t, r, s, a, service, to)
		if err == nil {
			return
		}
		again := retransmitted(r) - sent
		if again == 0 || attempt == 4 {
			t.Fatalf("%v; %d segments were sent again", err, again)
		}
		t.Logf("%v; but the link lost %d segments", err, again)
	}
}

func (w webServer) counted(t *testing.T, r *bed.Routed, s *bed.Siskin, a asker, service string, to netip.AddrPort) error {
	before, counted := w.answered(), countedOf(s, service)
	said := a.ask(t, r.Client, to)
	got, err := settled(
		func() bed.Answered { return w.answered().Since(before) },
		func() bed.Answered { return countedOf(s, service).Since(counted) }, max(1, said.Total()))
	if said != nil && (len(said.Since(got)) > 0 || len(got.Since(said)) > 0) {
		t.Errorf("the client was answered %v, the server says %v", said, got)
	}
	t.Logf("%v", got)
	return err
}

// retransmitted is how many segments those who talk have sent again.
func retransmitted(r *bed.Routed) int {
	n := 0
	for _, space := range []*bed.Namespace{r.Client, r.Near, r.Remote} {
		n += space.Retransmitted()
	}
	return n
}
