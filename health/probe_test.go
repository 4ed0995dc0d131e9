package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// loopbacks are where servers are, by family.
var loopbacks = map[string]string{"ipv4": "127.0.0.1:0", "ipv6": "[::1]:0"}

func eachFamily(t *testing.T, f func(t *testing.T, listen string)) {
	for family, listen := range loopbacks {
		t.Run(family, func(t *testing.T) { f(t, listen) })
	}
}

// serve listens, and handles each connection until the test ends.
func serve(t *testing.T, listen string, handle func(net.Conn)) Backend {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return at(l)
}

func at(l net.Listener) Backend {
	return Backend{"shop", "canary", l.Addr().(*net.TCPAddr).AddrPort()}
}

// closed returns a backend that nobody listens at.
func closed(t *testing.T, listen string) Backend {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return at(l)
}

// result asks once and returns what a report would say.
func result(p Probe, b Backend, timeout time.Duration) string {
	r := rules()
	r.Timeout = timeout
	return ask(context.Background(), Target{Probe: p, Rules: r}, b)
}

const (
	ample = 20 * time.Second // never used up
	short = 50 * time.Millisecond
)

func TestTCP(t *testing.T) {
	eachFamily(t, func(t *testing.T, listen string) {
		var accepted atomic.Int64
		b := serve(t, listen, func(c net.Conn) { accepted.Add(1); c.Close() })
		for range 20 {
			if got := result(TCP{}, b, ample); got != "" {
				t.Fatalf("it listens, but %s", got)
			}
		}
		if n := accepted.Load(); n > 0 {
			t.Errorf("the server has seen %d connections, want none", n)
		}
		if n := lingering(t, b.Addr); n > 0 {
			t.Errorf("%d connections are in TIME_WAIT", n)
		}
		if got := result(TCP{}, closed(t, listen), ample); got != "connection refused" {
			t.Errorf("nobody listens: %q", got)
		}
	})
}

// lingering counts the connections in TIME_WAIT with a port.
func lingering(t *testing.T, addr netip.AddrPort) (n int) {
	t.Helper()
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			port := fmt.Sprintf(":%04X", addr.Port())
			if len(f) > 3 && f[3] == "06" && (strings.HasSuffix(f[1], port) || strings.HasSuffix(f[2], port)) {
				n++
			}
		}
	}
	return n
}

// answering writes a response to each request and keeps the connection open.
func answering(response string) func(net.Conn) {
	return func(c net.Conn) {
		defer c.Close()
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := io.WriteString(c, response); err != nil {
				return
			}
		}
	}
}

func TestHTTP(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, tc := range []struct{ name, response, expect, want string }{
		{"a success", ok, "200-299", ""},
		{"the first of a range", ok, "200-299", ""},
		{"not expected", ok, "204,300-399", "status 200, want 204,300-399"},
		{"one of a list", "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "200, 401", ""},
		{"a redirect is not followed", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "200-299", "status 302, want 200-299"},
		{"a failure", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "200-299", "status 503, want 200-299"},
		{"early hints first", "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + ok, "200", ""},
		{"HTTP/1.0, to its end", "HTTP/1.0 200 OK\r\n\r\n", "200", "no answer in time"},
		{"in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200", ""},
		{"a body that is longer than anybody needs", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 200_000), "200", ""},
		{"a body that does not come", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "200", "no answer in time"},
		{"a head without an end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 20_000), "200", `read the response: malformed MIME header line: "X: y\r"`},
		{"no HTTP", "220 mail.example\r\n\r\n", "200", `read the response: malformed HTTP status code "mail.example"`},
		{"nothing", "", "200", "no answer in time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachFamily(t, func(t *testing.T, listen string) {
				b := serve(t, listen, answering(tc.response))
				timeout := ample
				if tc.want == "no answer in time" {
					timeout = short
				}
				if got := result(HTTP{Path: "/healthz", Expect: tc.expect}, b, timeout); got != tc.want {
					t.Errorf("%q, want %q", got, tc.want)
				}
				if n := lingering(t, b.Addr); n > 0 {
					t.Errorf("%d connections are in TIME_WAIT", n)
				}
			})
		})
	}
}

func TestHTTPRequest(t *testing.T) {
	eachFamily(t, func(t *testing.T, listen string) {
		seen := make(chan *http.Request, 1)
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r })}
		go server.Serve(l)
		defer server.Close()
		for _, host := range []string{"", "shop.example"} {
			if got := result(HTTP{Path: "/healthz?deep=1", Host: host, Expect: "200"}, at(l), ample); got != "" {
				t.Fatal(got)
			}
			r := <-seen
			want := host
			if want == "" {
				want = l.Addr().String()
			}
			if r.Host != want || r.URL.RequestURI() != "/healthz?deep=1" || r.Method != "GET" || r.UserAgent() != userAgent || r.Close {
				t.Errorf("the request is %s %s by %s to %s, close %v", r.Method, r.URL, r.UserAgent(), r.Host, r.Close)
			}
		}
		if got := result(HTTP{Path: "/", Expect: "200"}, closed(t, listen), ample); got != "connection refused" {
			t.Errorf("nobody listens: %q", got)
		}
	})
}

func TestGRPC(t *testing.T) {
	eachFamily(t, func(t *testing.T, listen string) {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		states := grpchealth.NewServer()
		states.SetServingStatus("cart", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		states.SetServingStatus("odd", grpc_health_v1.HealthCheckResponse_UNKNOWN)
		server := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(server, states)
		go server.Serve(l)
		defer server.Stop()
		plain, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		bare := grpc.NewServer()
		go bare.Serve(plain)
		defer bare.Stop()
		for _, tc := range []struct {
			service string
			b       Backend
			want    string
		}{
			{"", at(l), ""},
			{"cart", at(l), "it says NOT_SERVING"},
			{"odd", at(l), "it says status 0, not SERVING"},
			{"none", at(l), `its health service does not know the service "none"`},
			{"", at(plain), "it does not serve grpc.health.v1.Health"},
			{"", closed(t, listen), "connection refused"},
		} {
			if got := result(GRPC{tc.service}, tc.b, ample); got != tc.want {
				t.Errorf("%q: %q, want %q", tc.service, got, tc.want)
			}
			if n := lingering(t, tc.b.Addr); n > 0 {
				t.Errorf("%d connections are in TIME_WAIT", n)
			}
		}
		web := serve(t, listen, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		if got := result(GRPC{}, web, ample); got == "" {
			t.Error("a web server counts as a gRPC server")
		}
		left := make(chan error, 1)
		hanging := serve(t, listen, func(c net.Conn) {
			_, err := io.Copy(io.Discard, c)
			left <- err
		})
		if got := result(GRPC{}, hanging, short); got != "no answer in time" {
			t.Errorf("a server that says nothing: %q", got)
		}
		select {
		case <-left:
		case <-time.After(ample):
			t.Error("the probe has left its connection open")
		}
	})
}

func TestExec(t *testing.T) {
	b := Backend{"shop", "canary", netip.MustParseAddrPort("[2001:db8::1]:80")}
	sh := func(script string) Exec { return Exec{[]string{"/bin/sh", "-c", script}} }
	for _, tc := range []struct {
		name    string
		probe   Exec
		timeout time.Duration
		want    string
	}{
		{"a success", sh("exit 0"), ample, ""},
		{"a failure, with its reason", sh("echo no such item >&2; echo more; exit 3"), ample, "exit status 3: no such item"},
		{"a failure without a word", sh("exit 1"), ample, "exit status 1"},
		{"its environment", sh(`[ "$SISKIN_SERVICE $SISKIN_VERSION $SISKIN_BACKEND" = "shop canary [2001:db8::1]:80" ]`), ample, ""},
		{"too slow", sh("sleep 100"), short, "no answer in time"},
		{"not there", Exec{[]string{"/nonexistent"}}, ample, "no such file or directory"},
		{"endless output", sh("yes | head -c 1000000; exit 1"), ample, "exit status 1: y"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := result(tc.probe, b, tc.timeout); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// What a command has started ends with it, or when its time is up.
func TestExecKillsItsGroup(t *testing.T) {
	for _, tc := range []struct {
		name, end string
		timeout   time.Duration
		want      string
	}{
		{"in time", "exit 0", ample, ""},
		{"too late", "wait", 2 * time.Second, "no answer in time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			// It holds the output open, too.
			script := "sleep 1000 & echo $! > " + file + "; " + tc.end
			start := time.Now()
			if got := result(Exec{[]string{"/bin/sh", "-c", script}}, backend(1), tc.timeout); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if took := time.Since(start); took > ample/2 {
				t.Errorf("it took %v", took)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
			if err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(ample); !gone(pid); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("process %d is still there", pid)
				}
			}
		})
	}
}

// gone tells whether a process has ended, perhaps without anybody having asked
// for its status.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}
