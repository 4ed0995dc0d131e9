package bed

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An Httpd is a server of HTTP that others wrote, with its log: the status of
// each answer, a line each. What it is asked for is in Paths.
type Httpd struct {
	Name string

	space *Namespace
	dir   string
	cmd   *exec.Cmd
	exit  chan error
	out   *logBuffer
}

// Paths are what an Httpd and Make answer: by the status that they name, and
// with bodies of several kinds. What is below /made comes from a program behind.
var Paths = []string{"/200", "/204", "/301", "/304", "/404", "/500", "/503", "/empty", "/big", "/made/chunked", "/made/200"}

// Pages are what is asked for most: some of several segments.
var Pages = []string{"/page", "/200", "/page", "/404", "/page", "/503", "/page"}

// Big is the size of what is at /big.
const Big = 1 << 20

// httpdFiles has what an Httpd says where it takes a file.
var httpdFiles = map[string]int{"200": 5, "empty": 0, "page": 8000, "big": Big}

const nginxHTTPD = `daemon off; master_process off; pid {dir}/pid; error_log stderr warn;
events {}
http {
	log_format status $status;
	access_log {dir}/log status;
	client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};
	keepalive_requests 1000000;
	client_max_body_size 8m;
	upstream behind { server {behind}; keepalive 16; }
	server {
		{listen|listen %s;}
		{listen2|listen %s http2;}
		root {dir}/files;
		{status|location = /%[1]s { return %[1]s; }}
		location = /304 { return 304; }
		location = /301 { return 301 /200; }
		location /made/ { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }
	}
}
`

// Its ports speak HTTP/1 and HTTP/2, which it tells from the first bytes.
const haproxyHTTPD = `global
	log stdout format raw local0
	nbthread 1 # several lose lines to each other
defaults
	mode http
	log global
	log-format %ST
	option dontlognull
	timeout connect 10s
	timeout client 10s
	timeout server 10s
frontend web
	{listen|bind %s}
	http-request return status 200 content-type text/plain string "fine" if { path /200 }
	http-request return status 200 if { path /empty }
	{status|http-request return status %[1]s if { path /%[1]s }}
	http-request return status 304 if { path /304 }
	http-request redirect location /200 code 301 if { path /301 }
	default_backend behind
backend behind
	server made {behind}
`

const apacheHTTPD = `ServerRoot {dir}
ServerName shop
DefaultRuntimeDir {dir}
PidFile {dir}/pid
ErrorLog {dir}/errors
{module|LoadModule %[1]s_module /usr/lib/apache2/modules/mod_%[1]s.so}
{listen|Listen %s}
Protocols h2c http/1.1
MaxKeepAliveRequests 0
<Directory />
AllowOverride None
Require all granted
</Directory>
LogFormat "%>s" status
CustomLog {dir}/log status
DocumentRoot {dir}/files
RewriteEngine on
{status|RewriteRule ^/%[1]s$ - [R=%[1]s]}
{moved|Redirect %[1]s /%[1]s /200}
ProxyPass /made/ http://{behind}/made/
`

// ServeNginxHTTPD starts nginx: HTTP/1 at some addresses, HTTP/2 at others.
func (n *Namespace) ServeNginxHTTPD(behind netip.AddrPort, http1, http2 []netip.AddrPort) *Httpd {
	n.tb.Helper()
	return n.serveHTTPD("nginx", "nginx-light", nginxHTTPD, behind, http1, http2, "-p", "{dir}", "-e", "stderr", "-c")
}

// ServeHaproxyHTTPD starts haproxy.
func (n *Namespace) ServeHaproxyHTTPD(behind netip.AddrPort, at []netip.AddrPort) *Httpd {
	n.tb.Helper()
	return n.serveHTTPD("haproxy", "haproxy", haproxyHTTPD, behind, at, nil, "-db", "-f")
}

// ServeApacheHTTPD starts apache.
func (n *Namespace) ServeApacheHTTPD(behind netip.AddrPort, at []netip.AddrPort) *Httpd {
	n.tb.Helper()
	return n.serveHTTPD("apache2", "apache2-bin", apacheHTTPD, behind, at, nil, "-X", "-f")
}

// serveHTTPD starts a server that logs to a file of its directory, or to its
// standard output. Its last argument is its configuration.
func (n *Namespace) serveHTTPD(program, from, config string, behind netip.AddrPort, http1, http2 []netip.AddrPort, args ...string) *Httpd {
	n.tb.Helper()
	if _, err := exec.LookPath(program); err != nil {
		n.tb.Fatalf("install the package %s: %v", from, err)
	}
	h := &Httpd{Name: program, space: n, dir: n.tb.TempDir(), out: &logBuffer{}}
	log, err := os.OpenFile(h.write("log", nil), os.O_WRONLY|os.O_APPEND, 0)
	h.must(err)
	defer log.Close()
	h.must(os.Mkdir(filepath.Join(h.dir, "files"), 0o755))
	for name, size := range httpdFiles {
		h.write("files/"+name, Filled("fine\n", size)[:size])
	}
	config = h.fill(config, map[string][]string{
		"listen": texts(http1), "listen2": texts(http2), "status": {"204", "404", "500", "503"}, "moved": {"301", "304"},
		"module": {"mpm_event", "authn_core", "authz_core", "alias", "rewrite", "proxy", "proxy_http", "http2"},
	}, behind)
	args = append(args, h.write("config", []byte(config)))
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{dir}", h.dir)
	}
	h.cmd = exec.Command(program, args...)
	// A file is never full: of a pipe that is, haproxy loses lines.
	h.cmd.Stdout, h.cmd.Stderr = log, h.out
	if program == "apache2" {
		h.demote("www-data")
	}
	h.start(slices.Concat(http1, http2))
	return h
}

// demote lets it run as somebody else from the start. Apache refuses to be root,
// and one that changes its user by itself outlives a test that is killed.
func (h *Httpd) demote(to string) {
	h.space.tb.Helper()
	who, err := user.Lookup(to)
	h.must(err)
	uid, err := strconv.Atoi(who.Uid)
	h.must(err)
	gid, err := strconv.Atoi(who.Gid)
	h.must(err)
	h.must(os.Chmod(filepath.Dir(h.dir), 0o755)) // of the test
	for _, path := range []string{h.dir, filepath.Join(h.dir, "log")} {
		h.must(os.Chown(path, uid, gid))
	}
	h.cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

func (h *Httpd) must(err error) {
	h.space.tb.Helper()
	if err != nil {
		h.space.tb.Fatalf("make ready %s: %v", h.Name, err)
	}
}

func (h *Httpd) write(name string, content []byte) string {
	h.space.tb.Helper()
	path := filepath.Join(h.dir, name)
	h.must(os.WriteFile(path, content, 0o644))
	return path
}

// fill writes each line {name|line} once for each value of a name.
func (h *Httpd) fill(config string, values map[string][]string, behind netip.AddrPort) string {
	var out strings.Builder
	for line := range strings.Lines(config) {
		name, rest, found := strings.Cut(strings.TrimSpace(line), "|")
		if !found {
			out.WriteString(line)
			continue
		}
		for _, v := range values[strings.TrimPrefix(name, "{")] {
			fmt.Fprintf(&out, strings.TrimSuffix(rest, "}")+"\n", v)
		}
	}
	return strings.NewReplacer("{dir}", h.dir, "{behind}", behind.String()).Replace(out.String())
}

func texts(addrs []netip.AddrPort) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// start starts the program, and returns when it listens everywhere.
func (h *Httpd) start(at []netip.AddrPort) {
	tb := h.space.tb
	tb.Helper()
	h.must(h.space.Start(h.cmd))
	h.exit = make(chan error, 1)
	go func() { h.exit <- h.cmd.Wait() }()
	tb.Cleanup(func() {
		_ = h.cmd.Process.Signal(unix.SIGTERM) // it may have ended by itself
		<-h.exit
		if tb.Failed() {
			errors, _ := os.ReadFile(filepath.Join(h.dir, "errors"))
			tb.Logf("%s said:\n%s%s", h.Name, h.out, errors)
		}
	})
	end := time.Now().Add(Starting)
	for _, addr := range at {
		for {
			c, err := h.space.Dial("tcp", netip.AddrPort{}, addr)
			if err == nil {
				c.Close()
				break
			}
			select {
			case ended := <-h.exit:
				h.exit <- ended
				tb.Fatalf("%s ended: %v\n%s", h.Name, ended, h.out)
			default:
			}
			if time.Now().After(end) {
				tb.Fatalf("%s does not listen on %v after %v: %v", h.Name, addr, Starting, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// Answered counts answers by the code that siskin gives them: "2xx", "grpc_ok".
type Answered map[string]int

// Total is how many there are.
func (a Answered) Total() int {
	total := 0
	for _, n := range a {
		total += n
	}
	return total
}

// Since is how many more there are than there were.
func (a Answered) Since(before Answered) Answered {
	more := Answered{}
	for code, n := range a {
		if n != before[code] {
			more[code] = n - before[code]
		}
	}
	return more
}

// Class is the code of an HTTP status.
func Class(status int) string { return strconv.Itoa(status/100) + "xx" }

// Answered is what its log has so far, without 101: apache logs that it agreed to
// HTTP/2, and then how it answered.
func (h *Httpd) Answered() Answered {
	h.space.tb.Helper()
	raw, err := os.ReadFile(filepath.Join(h.dir, "log"))
	h.must(err)
	a := Answered{}
	for line := range strings.Lines(string(raw)) {
		if status, whole := strings.CutSuffix(line, "\n"); whole {
			n, err := strconv.Atoi(status)
			if err != nil {
				h.space.tb.Fatalf("%s logged %q", h.Name, line)
			}
			if n != http.StatusSwitchingProtocols {
				a[Class(n)]++
			}
		}
	}
	return a
}

// Make answers as its request's path says, and returns with which status.
func Make(w http.ResponseWriter, r *http.Request) int {
	name := path.Base(r.URL.Path)
	status, err := strconv.Atoi(name)
	switch {
	case err == nil:
		w.Header().Set("Location", "/200")
		w.WriteHeader(status)
		if status == http.StatusOK {
			fmt.Fprintln(w, "fine")
		}
		return status
	case name == "big":
		w.Header().Set("Content-Length", strconv.Itoa(Big))
		_, _ = w.Write(Filled("fine\n", Big)) // the client may have gone
	case name == "chunked":
		for range 5 {
			fmt.Fprintln(w, "fine")
			_ = http.NewResponseController(w).Flush()
		}
	}
	return http.StatusOK
}
