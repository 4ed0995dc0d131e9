package bed

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Web is a real web server, nginx: one process without a master. It answers every
// request with its name, until it is broken: then it resets the connection as
// soon as it has read a request.
type Web struct {
	Name string
	Addr netip.AddrPort

	space *Namespace
	dir   string
	cmd   *exec.Cmd
	exit  chan error // its end; nil: not running
	log   *logBuffer
}

// WebOptions say what is unlike the usual.
type WebOptions struct {
	Wait  time.Duration // for a program behind it that takes so long
	Lossy string        // the share of requests that are reset: "10%"
	Fails string        // and the share of those that are answered by 500
}

const nginxConfig = `daemon off;
master_process off;
pid {dir}/pid;
error_log stderr warn;
worker_rlimit_nofile 8192;
events { worker_connections 4000; }
http {
	access_log off;
	client_body_temp_path {dir}/body;
	proxy_temp_path {dir}/proxy;
	fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi;
	scgi_temp_path {dir}/scgi;
	keepalive_requests 1000000;
	reset_timedout_connection on; # and those that end with 444
	split_clients $request_id $lossy { {lossy} * 0; }
	split_clients $request_id.fails $fails { {fails} * 0; }
	upstream behind { server {behind}; keepalive 256; }
	server {
		listen {addr} backlog=4096;
		if (-f {dir}/broken) { return 444; }
		if ($lossy) { return 444; }
		# With words of its own, or nginx closes the connection.
		if (-f {dir}/failing) { return 500 {name}; }
		if ($fails) { return 500 {name}; }
		location / { {answer} }
	}
}
`

// ServeWeb starts a web server, which ends with the test.
func (n *Namespace) ServeWeb(addr netip.AddrPort, name string, o WebOptions) *Web {
	n.tb.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		n.tb.Fatalf("install the package nginx-light: %v", err)
	}
	x := &Web{Name: name, Addr: addr, space: n, dir: n.tb.TempDir(), log: &logBuffer{}}
	answer, behind := fmt.Sprintf("return 200 %q;", name), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())
	if o.Wait > 0 {
		n.ServeHTTP(behind, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(o.Wait)
			_, _ = io.WriteString(w, name)
		})
		answer = `proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";`
	}
	split := func(share string) string {
		if share == "" {
			return ""
		}
		return share + " 1;"
	}
	config := strings.NewReplacer("{dir}", x.dir, "{addr}", addr.String(), "{answer}", answer,
		"{behind}", behind.String(), "{lossy}", split(o.Lossy), "{fails}", split(o.Fails), "{name}", name).Replace(nginxConfig)
	if err := os.WriteFile(x.config(), []byte(config), 0o600); err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() {
		x.Stop()
		if n.tb.Failed() && x.log.String() != "" {
			n.tb.Logf("nginx %s said:\n%s", name, x.log)
		}
	})
	x.Start()
	return x
}

func (x *Web) config() string { return filepath.Join(x.dir, "nginx.conf") }

// Start starts it again, and returns when it listens.
func (x *Web) Start() {
	x.space.tb.Helper()
	x.cmd = exec.Command("nginx", "-p", x.dir, "-c", x.config(), "-e", "stderr")
	x.cmd.Stdout, x.cmd.Stderr = x.log, x.log
	if err := x.space.Start(x.cmd); err != nil {
		x.space.tb.Fatalf("start nginx %s: %v", x.Name, err)
	}
	x.exit = make(chan error, 1)
	go func(cmd *exec.Cmd, exit chan error) { exit <- cmd.Wait() }(x.cmd, x.exit)
	for end := time.Now().Add(Starting); ; time.Sleep(5 * time.Millisecond) {
		c, err := x.space.Dial("tcp", netip.AddrPort{}, x.Addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case err := <-x.exit:
			x.exit = nil
			x.space.tb.Fatalf("nginx %s ended with %v and said:\n%s", x.Name, err, x.log)
		default:
		}
		if time.Now().After(end) {
			x.space.tb.Fatalf("nginx %s does not listen after %v: %v", x.Name, Starting, err)
		}
	}
}

// Stop ends it at once: who connects from now on is refused.
func (x *Web) Stop() {
	if x.exit == nil {
		return
	}
	_ = x.cmd.Process.Signal(unix.SIGTERM) // it may have ended by itself
	<-x.exit
	x.exit = nil
}

// Break makes it reset every request from now on.
func (x *Web) Break() { x.become("broken") }

// Fail makes it answer every request by 500 from now on.
func (x *Web) Fail() { x.become("failing") }

// Mend makes it answer as it did at first.
func (x *Web) Mend() {
	x.space.tb.Helper()
	for _, what := range []string{"broken", "failing"} {
		if err := os.Remove(filepath.Join(x.dir, what)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			x.space.tb.Fatal(err)
		}
	}
}

func (x *Web) become(what string) {
	x.space.tb.Helper()
	if err := os.WriteFile(filepath.Join(x.dir, what), nil, 0o600); err != nil {
		x.space.tb.Fatal(err)
	}
}

// ServeHTTP serves HTTP in the namespace, HTTP/1 and HTTP/2 in the clear; it ends with the test.
func (n *Namespace) ServeHTTP(addr netip.AddrPort, handle http.HandlerFunc) {
	n.tb.Helper()
	l := n.Listen(addr)
	server := &http.Server{Handler: handle, ReadHeaderTimeout: Patience, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	n.tb.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			n.tb.Errorf("%s: the HTTP server on %v ended with %v", n.Role, addr, err)
		}
	})
}
