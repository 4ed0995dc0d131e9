package health

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// HTTP asks for a path by HTTP/1.1 and looks at the status. It follows no
// redirects: where they lead is not the backend.
type HTTP struct {
	Path   string // with the query, if any
	Host   string // "": the backend's address
	Expect string // "200", "200-299", "200,204"
}

const (
	userAgent = "siskin-health"
	// headLimit bounds the head of a response, bodyLimit what is read of its
	// body: a health page is short.
	headLimit = 64 << 10
	bodyLimit = 64 << 10
)

// Ask implements Probe. The answer's body must come, too, as far as it is read.
func (p HTTP) Ask(ctx context.Context, b Backend) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.Addr.String()+p.Path, nil)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	req.Host = p.Host
	req.Header.Set("User-Agent", userAgent)
	conn, err := dial(ctx, b.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer endWith(ctx, conn)()
	// It is not told that the connection closes: the server would then close
	// first, and be left with it in TIME_WAIT.
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	resp, err := readResponse(conn, req)
	if err != nil {
		return fmt.Errorf("read the response: %w", err)
	}
	if !statusIn(p.Expect, resp.StatusCode) {
		return fmt.Errorf("status %d, want %s", resp.StatusCode, p.Expect)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, bodyLimit); err != nil && err != io.EOF {
		return fmt.Errorf("read the body: %w", err)
	}
	return nil
}

// endWith makes conn give up when ctx ends, until the returned function is
// called.
func endWith(ctx context.Context, conn net.Conn) func() bool {
	// A deadline in the past wakes who reads or writes; it cannot fail in a way
	// that matters.
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// readResponse reads the head of the final response: servers may send others
// with a status of 1xx before it.
func readResponse(conn io.Reader, req *http.Request) (*http.Response, error) {
	limited := &io.LimitedReader{R: conn, N: headLimit}
	r := bufio.NewReader(limited)
	for {
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			limited.N += bodyLimit + headLimit // trailers and the sizes of chunks count as well
			return resp, nil
		}
	}
}

// statusIn tells whether a status is in a list of statuses and ranges.
func statusIn(list string, status int) bool {
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		a, err := strconv.Atoi(low)
		z, err2 := strconv.Atoi(high)
		if err == nil && err2 == nil && a <= status && status <= z {
			return true
		}
	}
	return false
}
