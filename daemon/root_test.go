package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"siskin.dev/siskin/api"
	"siskin.dev/siskin/daemon"
	"siskin.dev/siskin/loader"
	"siskin.dev/siskin/test/netns"
)

// asDaemon makes the test binary a daemon: the children of these tests run in
// a network namespace of their own, which a goroutine cannot.
const asDaemon = "SISKIN_TEST_DAEMON"

const exitLocked = 6

func TestMain(m *testing.M) {
	if text := os.Getenv(asDaemon); text != "" {
		os.Exit(runDaemon(text))
	}
	os.Exit(m.Run())
}

func runDaemon(text string) int {
	var opts daemon.Options
	if err := json.Unmarshal([]byte(text), &opts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	opts.Logger, opts.Stdout = slog.New(slog.NewTextHandler(os.Stderr, nil)), os.Stdout
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := daemon.Run(ctx, opts)
	switch {
	case errors.Is(err, loader.ErrLocked):
		fmt.Fprintln(os.Stderr, err)
		return exitLocked
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// bed is a network namespace with one uplink, a bpf filesystem and a state
// directory of the test's own.
type bed struct {
	t      *testing.T
	dir    string
	client api.Client
	caps   string // the daemon's capabilities, as setpriv takes them; "": all
}

// layout is the directory of this build's pins.
var layout = "v" + strconv.Itoa(loader.LayoutVersion)

const listenOn = "127.0.0.1:9464"

func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `sudo -E make test-root`")
	}
	// A test's own temporary directory is too long a path for a socket.
	dir, err := os.MkdirTemp("", "siskin")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{t: t, dir: dir, client: api.Client{Socket: filepath.Join(dir, "sock")}}
	if err := os.Mkdir(filepath.Join(dir, "bpf"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(filepath.Join(dir, "bpf"), 0), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	netns.Enter(t)
	t.Cleanup(func() {
		if _, err := loader.Uninstall(b.options().BPFFS); err != nil {
			t.Error(err)
		}
	})
	b.veth("up0", "198.18.0.1/24")
	b.veth("pod0", "198.18.1.1/24")
	return b
}

func (b *bed) veth(name, addr string) int {
	b.t.Helper()
	l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(l); err != nil {
		b.t.Fatalf("add %s: %v", name, err)
	}
	for _, end := range []string{name, name + "p"} {
		dev, err := netlink.LinkByName(end)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := netlink.LinkSetUp(dev); err != nil {
			b.t.Fatal(err)
		}
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		b.t.Fatalf("add %s: %v", addr, err)
	}
	return l.Attrs().Index
}

func (b *bed) options() daemon.Options {
	return daemon.Options{
		Interfaces: []string{"up0"},
		StateDir:   filepath.Join(b.dir, "state"),
		BPFFS:      filepath.Join(b.dir, "bpf", "siskin"),
		Socket:     b.client.Socket,
		Listen:     listenOn,
		Sizes:      loader.Sizes{Flows: 1024, Backends: 64, Frontends: 16, Services: 16, Versions: 16, Words: 16, Maglev: 8192},
		Version:    "test",
	}
}

// file writes a document and returns its path.
func (b *bed) file(text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, "doc.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// process is a running daemon.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{} // closed when it is gone
	line  string        // what it said when it steered
}

// launch starts a daemon and waits until it steers or ends.
func (b *bed) launch(change ...func(*daemon.Options)) *process {
	b.t.Helper()
	opts := b.options()
	for _, c := range change {
		c(&opts)
	}
	// What cannot cross to the child has no place in the text.
	text, err := json.Marshal(struct {
		Files, Interfaces, XDP          []string
		StateDir, BPFFS, Socket, Listen string
		Sizes                           loader.Sizes
		Version                         string
		NeverRedirect                   bool
	}{opts.Files, opts.Interfaces, opts.XDP, opts.StateDir, opts.BPFFS, opts.Socket, opts.Listen, opts.Sizes, opts.Version, opts.NeverRedirect})
	if err != nil {
		b.t.Fatal(err)
	}
	p := &process{t: b.t, cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	if b.caps != "" {
		p.cmd = exec.Command("setpriv", "--bounding-set", "-all"+b.caps, "--inh-caps", "-all"+b.caps, os.Args[0])
	}
	p.cmd.Env = append(os.Environ(), asDaemon+"="+string(text))
	p.cmd.Stderr = b.t.Output()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil { // from this thread, so in this namespace
		b.t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n') // empty when it ends before
		said <- strings.TrimSuffix(line, "\n")
		_, _ = io.Copy(io.Discard, out)
		_ = p.cmd.Wait() // its exit code is asked for later
		close(p.ended)
	}()
	b.t.Cleanup(func() { p.end(syscall.SIGKILL) })
	select {
	case p.line = <-said:
	case <-time.After(60 * time.Second):
		b.t.Fatal("the daemon says nothing")
	}
	return p
}

// end sends a signal, waits for the end and returns the exit code.
func (p *process) end(s syscall.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("the daemon does not end by %s", s)
	}
	return p.cmd.ProcessState.ExitCode()
}

// get asks the daemon's HTTP listener. It dials by itself, since an HTTP
// client would do so on a thread of another namespace.
func (b *bed) get(path string) (int, string) {
	b.t.Helper()
	conn, err := net.Dial("tcp", listenOn)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, listenOn)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// await asks until the answer is yes.
func (b *bed) await(what string, ask func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ask() {
			return
		}
	}
	b.t.Fatalf("no %s within 20 s", what)
}

// event tells whether there is an event of a reason.
func (b *bed) event(reason string) bool {
	b.t.Helper()
	events, err := b.client.Events(b.t.Context(), 0)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range events {
		if e.Reason == reason {
			return true
		}
	}
	return false
}
