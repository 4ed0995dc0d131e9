package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Clients is how many addresses ask, one after the other: all of
// 198.18.64.0/18, which must be local where the load runs.
const Clients = 1 << 14

// Options of a load.
type Options struct {
	URL  string
	Rate int // new connections a second
}

// Request is one request and what came of it.
type Request struct {
	Start  int64  // monotonic, in ns; before the connection is opened
	Client int    // 0 to Clients-1
	Server string // the name in the answer; "" where it failed
	Err    string // why it failed
}

type clientKey struct{}

// Run asks at a steady rate, each time from another address over a new
// connection, until ctx ends. It waits for the answers that are on their way.
func Run(ctx context.Context, o Options) ([]Request, error) {
	if o.URL == "" || o.Rate <= 0 {
		return nil, errors.New("run the load: -to and a positive -rate are needed")
	}
	client := &http.Client{
		Timeout:   3 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialFrom},
	}
	var (
		mu   sync.Mutex
		done []Request
		work = make(chan int, o.Rate) // a second of it may wait
		wg   sync.WaitGroup
	)
	for range 64 {
		wg.Go(func() {
			for n := range work {
				r := ask(client, o.URL, n%Clients)
				mu.Lock()
				done = append(done, r)
				mu.Unlock()
			}
		})
	}
	pace(ctx, o.Rate, work)
	close(work)
	wg.Wait()
	return done, nil
}

// pace hands out numbers at the given rate until ctx ends. It makes up for
// what it missed, so the rate holds on a busy machine too.
func pace(ctx context.Context, rate int, work chan<- int) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	start, n := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * float64(rate)); n < due; n++ {
			select {
			case <-ctx.Done():
				return
			case work <- n:
			}
		}
	}
}

// dialFrom opens a connection from the address of the client in ctx.
func dialFrom(ctx context.Context, network, to string) (net.Conn, error) {
	n, _ := ctx.Value(clientKey{}).(int)
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(address(n), 0)),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			control := raw.Control(func(fd uintptr) {
				// The port is chosen at connect, so that each address has all
				// of them, also those that wait at another address.
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			return errors.Join(control, err)
		},
	}
	return d.DialContext(ctx, network, to)
}

// address returns the address of client n.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, 64 + byte(n>>8), byte(n)})
}

// ask makes one request. The server answers with its name.
func ask(client *http.Client, url string, n int) Request {
	r := Request{Client: n}
	ctx := context.WithValue(context.Background(), clientKey{}, n)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	if r.Start, err = monotonic(); err != nil {
		r.Err = err.Error()
		return r
	}
	resp, err := client.Do(req)
	if err != nil {
		r.Err = reason(err)
		return r
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	switch {
	case err != nil:
		r.Err = reason(err)
	case resp.StatusCode != http.StatusOK:
		r.Err = fmt.Sprintf("status %d", resp.StatusCode)
	default:
		r.Server = strings.TrimSpace(string(body))
	}
	return r
}

// reason names an error in a word.
func reason(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "reset"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
