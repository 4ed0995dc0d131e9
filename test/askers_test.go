package test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"siskin.dev/siskin/test/bed"
)

// An asker is a client of a web server. It asks a number of times, waits for
// every answer, and returns what it was answered; nil: it does not say.
type asker struct {
	name string
	ask  func(t *testing.T, from *bed.Namespace, to netip.AddrPort) bed.Answered
}

// program runs a client to its end and returns what it printed.
func program(t *testing.T, from *bed.Namespace, pkg, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("install the package %s: %v", pkg, err)
	}
	cmd := exec.Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := from.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out.String(), errs.String())
	}
	return out.String()
}

func urls(to netip.AddrPort, paths ...string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, "http://"+to.String()+p)
	}
	return out
}

// wrkScript lets each thread ask so many times and stop: cut off by the clock,
// wrk leaves requests behind that are answered or not.
const wrkScript = `
local paths = { %s }
local asked, answered = 0, 0
function request()
	local batch = {}
	for i = 1, %d do
		asked = asked + 1
		batch[i] = wrk.format("GET", paths[asked %% #paths + 1])
	end
	return table.concat(batch)
end
function response()
	answered = answered + 1
	if answered == %d then
		wrk.thread:stop()
		io.stderr:write("done\n")
	end
end
`

// wrk asks on so many connections, each so many times, in batches.
func wrk(threads, each, batch int, more ...string) asker {
	name := fmt.Sprintf("wrk, %d at once", batch)
	if len(more) > 0 {
		name += ", " + more[len(more)-1]
	}
	return asker{name, func(t *testing.T, from *bed.Namespace, to netip.AddrPort) bed.Answered {
		if _, err := exec.LookPath("wrk"); err != nil {
			t.Fatalf("install the package wrk: %v", err)
		}
		script := filepath.Join(t.TempDir(), "ask.lua")
		content := fmt.Sprintf(wrkScript, `"`+strings.Join(bed.Paths, `","`)+`"`, batch, each)
		if err := os.WriteFile(script, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		many := strconv.Itoa(threads)
		args := append([]string{"-t", many, "-c", many, "-d", "60s", "--timeout", "60s", "-s", script}, more...)
		cmd := exec.Command("wrk", append(args, urls(to, "/")...)...)
		var out bytes.Buffer
		cmd.Stdout = &out
		stderr, err := cmd.StderrPipe()
		if err == nil {
			err = from.Start(cmd)
		}
		if err != nil {
			t.Fatalf("start wrk: %v", err)
		}
		done := 0
		for lines := bufio.NewScanner(stderr); done < threads && lines.Scan(); {
			if lines.Text() == "done" {
				done++
			}
		}
		// It waits for its time to be over, unless it is told.
		err = cmd.Process.Signal(unix.SIGINT)
		if err = errors.Join(err, cmd.Wait()); err != nil || done < threads || strings.Contains(out.String(), "Socket errors") {
			t.Fatalf("%d of %d threads were done: %v\n%s", done, threads, err, out.String())
		}
		return nil
	}}
}

var h2loadCodes = regexp.MustCompile(`(\d+) ([1-5]xx)`)

// h2load asks over HTTP/2 on several connections, many streams at a time.
func h2load(connections, atOnce, requests int, paths []string, more ...string) asker {
	name := strings.Join(append([]string{fmt.Sprintf("h2load, %d at once", atOnce)}, more...), " ")
	return asker{name, func(t *testing.T, from *bed.Namespace, to netip.AddrPort) bed.Answered {
		args := append([]string{
			"-n", strconv.Itoa(requests), "-c", strconv.Itoa(connections), "-m", strconv.Itoa(atOnce), "-T", "60s", "-N", "60s",
			"-H", ":authority: shop", // what it writes of an IPv6 address is none
		}, more...)
		out := program(t, from, "nghttp2-client", "h2load", append(args, urls(to, paths...)...)...)
		_, codes, _ := strings.Cut(out, "status codes:")
		got := bed.Answered{}
		for _, m := range h2loadCodes.FindAllStringSubmatch(codes, -1) {
			if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
				got[m[2]] = n
			}
		}
		if slices.Contains(more, "--h1") && got.Total() >= requests {
			return nil // what it asks again on another connection it counts twice
		}
		if got.Total() != requests {
			t.Fatalf("h2load was answered %v, want %d\n%s", got, requests, out)
		}
		return got
	}}
}

// curl asks for everything in all ways that it knows: over HTTP/1 on one
// connection where the server lets it, and over HTTP/2 on a connection each,
// since Debian's takes an open one for HTTP/1.
func curl(more ...string) asker {
	name := strings.Join(append([]string{"curl"}, more...), " ")
	paths := slices.Clone(bed.Paths)
	if slices.Contains(more, "--http2") {
		// It has no room for more than 32 KiB that come with the server's consent.
		paths = slices.DeleteFunc(paths, func(p string) bool { return p == "/big" })
	}
	return asker{name, func(t *testing.T, from *bed.Namespace, to netip.AddrPort) bed.Answered {
		body := filepath.Join(t.TempDir(), "body")
		if err := os.WriteFile(body, bed.Filled("more\n", 48<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		var args, codes []string
		run := func() {
			codes = append(codes, strings.Fields(program(t, from, "curl", "curl", args...))...)
			args = nil
		}
		asks := func(paths []string, options ...string) {
			for _, u := range urls(to, paths...) {
				if len(args) > 0 {
					args = append(args, "--next")
				}
				args = append(args, "-sS", "-m", "30", "-w", "%{http_code}\n", "-o", "/dev/null", u)
				args = append(append(args, more...), options...)
				if len(more) > 0 {
					run()
				}
			}
		}
		asks(paths)
		asks(paths, "-I")
		asks([]string{"/made/200", "/made/500"}, "-H", "Expect: 100-continue", "--expect100-timeout", "0.2", "--data-binary", "@"+body)
		asks([]string{"/made/404"}, "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-T", body)
		asks(paths)
		if len(args) > 0 {
			run()
		}
		got := bed.Answered{}
		for _, code := range codes {
			n, err := strconv.Atoi(code)
			if err != nil {
				t.Fatal(err)
			}
			got[bed.Class(n)]++
		}
		if want := 3*len(paths) + 3; got.Total() != want {
			t.Fatalf("curl was answered %v, want %d", got, want)
		}
		return got
	}}
}

// goes asks with Go's client, several at a time.
func goes(name string, atOnce, each int, paths []string, set func(*http.Transport)) asker {
	return asker{"Go, " + name, func(t *testing.T, from *bed.Namespace, to netip.AddrPort) bed.Answered {
		transport := &http.Transport{
			Protocols: new(http.Protocols), MaxIdleConnsPerHost: atOnce, DisableCompression: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return from.Dial("tcp", netip.AddrPort{}, to)
			},
		}
		set(transport)
		defer transport.CloseIdleConnections()
		client := &http.Client{
			Transport: transport, Timeout: 12 * bed.Patience,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		var (
			group sync.WaitGroup
			count bed.Counter
		)
		for range atOnce {
			group.Go(func() {
				for i := range each {
					method := []string{http.MethodGet, http.MethodGet, http.MethodHead, http.MethodPost}[i%4]
					status, err := askFor(client, method, urls(to, paths[i%len(paths)])[0])
					if err != nil {
						t.Error(err)
						return
					}
					count.Add(bed.Class(status))
				}
			})
		}
		group.Wait()
		return count.Answered()
	}}
}

func askFor(client *http.Client, method, url string) (int, error) {
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(strings.Repeat("more\n", 1000))
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func goHTTP1(atOnce, each int, paths []string) asker {
	return goes("HTTP/1", atOnce, each, paths, func(t *http.Transport) { t.Protocols.SetHTTP1(true) })
}

func goClosing(atOnce, each int, paths []string) asker {
	return goes("a connection each", atOnce, each, paths, func(t *http.Transport) {
		t.Protocols.SetHTTP1(true)
		t.DisableKeepAlives = true
	})
}

func goHTTP2(atOnce, each int, paths []string) asker {
	return goes("HTTP/2", atOnce, each, paths, func(t *http.Transport) { t.Protocols.SetUnencryptedHTTP2(true) })
}

// settled waits until what siskin counted is what the server answered.
func settled(want, got func() bed.Answered, atLeast int) (bed.Answered, error) {
	var answered, counted bed.Answered
	for end := time.Now().Add(bed.Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		answered, counted = want(), got()
		if answered.Total() >= atLeast && len(answered.Since(counted)) == 0 && len(counted.Since(answered)) == 0 {
			return answered, nil
		}
	}
	return answered, fmt.Errorf("the server answered %v, counted were %v", answered, counted)
}

// countedOf is what siskin has counted of a service.
func countedOf(s *bed.Siskin, service string) bed.Answered {
	got := bed.Answered{}
	for _, m := range s.Scrape().Find("siskin_requests_total", "service", service) {
		for _, l := range m.GetLabel() {
			if n := int(m.GetCounter().GetValue()); l.GetName() == "code" && n > 0 {
				got[l.GetValue()] += n
			}
		}
	}
	return got
}
