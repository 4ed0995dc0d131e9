package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/test/bed"
)

// soon are rules by which what really fails is told soon, and what is only slow,
// on a busy machine, is not taken for it.
const soon = "interval: 50ms, timeout: 5s, rise: 2, fall: 3"

// backendView returns one backend as `siskin get backends` shows it.
func backendView(t *testing.T, s *bed.Siskin, service string, at netip.AddrPort) api.BackendView {
	t.Helper()
	var list []api.BackendView
	s.JSON(&list, "get", "backends", service)
	for _, b := range list {
		if b.Address == at.String() {
			return b
		}
	}
	t.Fatalf("no backend %s of %s", at, service)
	return api.BackendView{}
}

func awaitState(t *testing.T, s *bed.Siskin, service string, at netip.AddrPort, state string) api.BackendView {
	t.Helper()
	var b api.BackendView
	s.Await(fmt.Sprintf("backend %s of %s is %s", at, service, state), func() bool {
		b = backendView(t, s, service, at)
		return b.State == state
	})
	return b
}

// messages returns the events with a reason.
func messages(s *bed.Siskin, reason string) (out []string) {
	var list []api.Event
	s.JSON(&list, "get", "events")
	for _, e := range list {
		if e.Reason == reason {
			out = append(out, e.Message)
		}
	}
	return out
}

// page is a client that keeps its connection to a web server.
type page struct {
	net.Conn
	r *bufio.Reader
}

func openPage(r *bed.Routed, from, to netip.AddrPort) (page, error) {
	c, err := r.Client.Dial("tcp", from, to)
	return page{c, bufio.NewReader(c)}, err
}

// ask returns which server answers.
func (p page) ask() (string, error) {
	if err := p.SetDeadline(time.Now().Add(bed.Patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(p, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		return "", err
	}
	name, err := io.ReadAll(resp.Body)
	return string(name), err
}

// Of three real web servers one fails its check: it gets nothing new, exactly
// its clients move, its connections go on, a restart of the daemon changes
// nothing, and when it is well it has its clients back.
func TestRootUnhealthyBackend(t *testing.T) {
	const clients = 200
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		servers, stable := map[string]netip.AddrPort{}, []netip.AddrPort{}
		for i, name := range []string{"a", "b", "c"} {
			servers[name] = netip.AddrPortFrom(f.At(bed.Nearby, 2), uint16(8081+i))
			stable = append(stable, servers[name])
		}
		web := r.ServeNginx(r.Near, servers)
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
		s.Apply(bed.Service{Name: "web", Proto: "tcp", Frontends: []netip.AddrPort{frontend}, Stable: stable,
			Health: "{http: {path: /healthz, host: shop}, " + soon + "}"})
		for _, b := range stable {
			if v := awaitState(t, s, "web", b, "active"); v.LastCheck == nil || v.LastCheck.Error != "" {
				t.Errorf("the last check of %s: %+v", b, v.LastCheck)
			}
		}
		where := func() []string {
			names := make([]string, clients)
			for i := range names {
				p, err := openPage(r, netip.AddrPortFrom(f.Visitor(i), 0), frontend)
				if err != nil {
					t.Fatal(err)
				}
				if names[i], err = p.ask(); err != nil {
					t.Fatal(err)
				}
				p.Close()
			}
			return names
		}
		before := where()
		at := slices.Index(before, "b")
		if at < 0 {
			t.Fatalf("none of %d clients is on b", clients)
		}
		open, err := openPage(r, netip.AddrPortFrom(f.Visitor(at), 0), frontend)
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		goesOn := func() {
			t.Helper()
			if name, err := open.ask(); err != nil || name != "b" {
				t.Errorf("the open connection: %q, %v", name, err)
			}
		}
		goesOn()
		check := func() {
			t.Helper()
			moved := 0
			for i, name := range where() {
				if before[i] == "b" {
					moved++
				}
				if name == "b" || before[i] != "b" && name != before[i] {
					t.Errorf("client %d was on %s, is on %s", i, before[i], name)
				}
			}
			t.Logf("%d of %d clients moved", moved, clients)
			goesOn()
		}

		web.Sicken("b")
		down := awaitState(t, s, "web", servers["b"], "down")
		if down.LastCheck == nil || down.LastCheck.Error != "status 404, want 200-299" {
			t.Errorf("its last check: %+v", down.LastCheck)
		}
		told := messages(s, "BackendDown")
		want := fmt.Sprintf("backend %s is down: 3 failures, last: status 404, want 200-299; stable's table changed ", servers["b"])
		if len(told) != 1 || !strings.HasPrefix(told[0], want) {
			t.Errorf("events %q, want %q…", told, want)
		}
		t.Log(told)
		check()
		for name, addr := range servers {
			up, err := s.Scrape().Sum("siskin_backend_up", "backend", addr.String())
			if want := map[bool]float64{true: 1}[name != "b"]; err != nil || up != want {
				t.Errorf("siskin_backend_up of %s is %v, %v", name, up, err)
			}
		}

		s.Kill()
		check()
		s.Start()
		if b := backendView(t, s, "web", servers["b"]); b.State != "down" {
			t.Errorf("after a restart it is %s", b.State)
		}
		check()
		for _, reason := range []string{"BackendUp", "BackendDown"} {
			if told := messages(s, reason); len(told) > 0 {
				t.Errorf("a restart is told as a change: %q", told)
			}
		}

		web.Heal("b")
		awaitState(t, s, "web", servers["b"], "active")
		if now := where(); !slices.Equal(before, now) {
			t.Errorf("the clients did not come back:\n%v\n%v", before, now)
		}
		if told := messages(s, "BackendUp"); len(told) != 1 || !strings.Contains(told[0], " is up: ") {
			t.Errorf("events %q", told)
		}
		if log := web.Log("access"); !strings.Contains(log, "siskin-health") {
			t.Errorf("nginx has seen no check:\n%s", log)
		}
	})
}

// A canary whose only backend says over gRPC that it does not serve: all is
// stable's, which is told, and back when it serves.
func TestRootUnhealthyCanary(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		service := plain(r, f, "rpc", 10)
		service.Weight, service.Health = "100%", "{grpc: {service: rpc}, "+soon+"}"
		states := grpchealth.NewServer()
		states.SetServingStatus("rpc", grpc_health_v1.HealthCheckResponse_SERVING)
		// The servers of plain speak lines, so those of gRPC stand beside them.
		for i, b := range []*netip.AddrPort{&service.Stable[0], &service.Canary[0]} {
			*b = netip.AddrPortFrom(f.At(bed.Remotes, 2), uint16(9001+i))
			own := states
			if i == 0 {
				own = grpchealth.NewServer()
				own.SetServingStatus("rpc", grpc_health_v1.HealthCheckResponse_SERVING)
			}
			serveGRPC(t, r.Remote, *b, own)
		}
		s.Apply(service)
		opened := func(version string) uint64 { return s.Version("rpc", version).Traffic.Opened }
		connect := func(version string) {
			t.Helper()
			before := opened(version)
			c, err := r.Client.Dial("tcp", netip.AddrPortFrom(f.Visitor(1), 0), service.Frontends[0])
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if opened(version) != before+1 {
				t.Errorf("a new connection did not go to %s", version)
			}
		}
		awaitState(t, s, "rpc", service.Canary[0], "active")
		awaitState(t, s, "rpc", service.Stable[0], "active")
		connect("canary")
		states.SetServingStatus("rpc", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		if b := awaitState(t, s, "rpc", service.Canary[0], "down"); b.LastCheck.Error != "it says NOT_SERVING" {
			t.Errorf("its last check: %+v", b.LastCheck)
		}
		connect("stable")
		if n, err := s.Scrape().Sum("siskin_special_cases_total", "kind", "version_empty"); err != nil || n < 1 {
			t.Errorf("connections that fell back to stable: %v, %v", n, err)
		}
		s.Await("the canary's end is told", func() bool { return len(messages(s, "VersionDown")) == 1 })
		if p := s.View("rpc").Problems; len(p) == 0 || !strings.Contains(strings.Join(p, "\n"), "its share of connections goes to stable") {
			t.Errorf("problems %q", p)
		}
		states.SetServingStatus("rpc", grpc_health_v1.HealthCheckResponse_SERVING)
		awaitState(t, s, "rpc", service.Canary[0], "active")
		connect("canary")
		s.Await("its return is told", func() bool { return len(messages(s, "HealthRestored")) == 1 })
	})
}

func serveGRPC(t *testing.T, at *bed.Namespace, addr netip.AddrPort, states *grpchealth.Server) {
	t.Helper()
	l := at.Listen(addr)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, states)
	go server.Serve(l)
	t.Cleanup(server.Stop)
}

// A command fails for all of stable: health is ignored, said, and nobody is
// turned away.
func TestRootUnhealthyStable(t *testing.T) {
	r := bed.NewRouted(bed.New(t))
	s := steer(t, r.Bed, r.Host, []string{"up0"})
	f := bed.V4
	service := plain(r, f, "all", 10)
	file := r.Write("fine", "")
	service.Health = fmt.Sprintf("{exec: {command: [/bin/sh, -c, 'test -e %s || { echo $SISKIN_BACKEND is lost; exit 4; }']}, %s}", file, soon)
	s.Apply(service)
	awaitState(t, s, "all", service.Stable[0], "active")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b := awaitState(t, s, "all", service.Stable[0], "down")
	if want := fmt.Sprintf("exit status 4: %s is lost", service.Stable[0]); b.LastCheck.Error != want {
		t.Errorf("its last check is %q, want %q", b.LastCheck.Error, want)
	}
	s.Await("it is said", func() bool { return len(messages(s, "HealthIgnored")) == 1 })
	askAll(t, r.Client, f, service.Frontends[0], "all-stable")
	if p := strings.Join(s.View("all").Problems, "\n"); !strings.Contains(p, "health is ignored") {
		t.Errorf("problems %q", p)
	}
	if d := s.CLI("doctor"); !strings.Contains(d.Stdout, "service all: none of the IPv4 backends of stable (1) answers") {
		t.Errorf("the doctor says\n%s", d.Stdout)
	}
	// Without a check nobody is down.
	service.Health = ""
	s.Apply(service)
	if b := backendView(t, s, "all", service.Stable[0]); b.State != "active" || b.LastCheck != nil {
		t.Errorf("without a check: %+v", b)
	}
}

// Where the frontend is the address of stable's own server, that server is asked
// and not the canary that stands in for it, wherever it is.
func TestRootHealthPastSteering(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		for i, place := range r.Places() {
			name := place.Name
			stable := netip.AddrPortFrom(f.At(place.Net, place.N), 8081)
			canary := netip.AddrPortFrom(f.At(bed.Nearby, 2), uint16(8090+i))
			real := place.Space.ServeTCP(stable, "stable", bed.Answer)
			r.Near.ServeTCP(canary, "canary", bed.Answer)
			s.Apply(bed.Service{Name: name, Proto: "tcp", Frontends: []netip.AddrPort{stable},
				Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary}, Weight: "100%",
				Health: "{tcp: {}, " + soon + "}"})
			awaitState(t, s, name, stable, "active")
			awaitState(t, s, name, canary, "active")
			if n := real.Accepted.Load(); n > 0 {
				t.Errorf("%s: the server has seen %d connections of its checks", name, n)
			}
			real.Stop()
			if b := awaitState(t, s, name, stable, "down"); b.LastCheck.Error != "connection refused" {
				t.Errorf("%s: its last check: %+v", name, b.LastCheck)
			}
			if place.Space != r.Remote && place.Space != r.Far { // to those, clients go past this host
				askAll(t, r.Client, f, stable, "canary")
			}
			if n := s.Version(name, "stable").Traffic.Opened; n > 0 {
				t.Errorf("%s: %d checks were steered", name, n)
			}
		}
	})
}

// A new backend is given nothing before it has answered, and one that accepts
// connections and never answers is down, although it listens.
func TestRootNewAndHangingBackends(t *testing.T) {
	each(t, func(t *testing.T, r *bed.Routed, s *bed.Siskin, f bed.Family) {
		at := f.At(bed.Nearby, 2)
		stable, canary, hangs := netip.AddrPortFrom(at, 8081), netip.AddrPortFrom(at, 8082), netip.AddrPortFrom(at, 8083)
		frontend := netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)
		r.ServeNginx(r.Near, map[string]netip.AddrPort{"stable": stable})
		r.Near.ServeTCP(hangs, "hangs", func(_ *bed.Server, c net.Conn) error {
			_, err := io.Copy(io.Discard, c)
			return err
		})
		s.Apply(bed.Service{Name: "new", Proto: "tcp", Frontends: []netip.AddrPort{frontend}, Weight: "100%",
			Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary, hangs},
			Health: "{http: {path: /healthz}, interval: 50ms, timeout: 1s, fall: 1, startup: {failureThreshold: 10000, interval: 50ms}}"})
		ask := func(want string) {
			t.Helper()
			p, err := openPage(r, netip.AddrPortFrom(f.Visitor(1), 0), frontend)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if name, err := p.ask(); err != nil || name != want {
				t.Errorf("%q, %v, want %s", name, err, want)
			}
		}
		awaitState(t, s, "new", stable, "active")
		for _, b := range []netip.AddrPort{canary, hangs} {
			if v := backendView(t, s, "new", b); v.State != "starting" {
				t.Errorf("%s is %s", b, v.State)
			}
		}
		ask("stable")
		s.Await("the one that hangs is known to", func() bool {
			c := backendView(t, s, "new", hangs).LastCheck
			return c != nil && c.Error == "no answer in time"
		})
		r.Near.ServeTCP(canary, "late", func(_ *bed.Server, c net.Conn) error {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return err
			}
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
			return err
		})
		awaitState(t, s, "new", canary, "active")
		ask("late")
		if v := backendView(t, s, "new", hangs); v.State != "starting" {
			t.Errorf("the one that hangs is %s", v.State)
		}
	})
}
