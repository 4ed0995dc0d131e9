package bed

import (
	"io"
	"maps"
	"net/http"
	"net/netip"
	"sync"
)

// A Counter counts answers.
type Counter struct {
	mu  sync.Mutex
	all Answered
}

// Add counts one.
func (c *Counter) Add(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = Answered{}
	}
	c.all[code]++
}

// Answered is what was counted so far.
func (c *Counter) Answered() Answered {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.all)
}

// ServeCounted starts Go's own server of HTTP/1 and HTTP/2 at each address,
// which answers all Paths and counts what it answers; it ends with the test.
func (n *Namespace) ServeCounted(at ...netip.AddrPort) *Counter {
	n.tb.Helper()
	c := &Counter{}
	for _, addr := range at {
		n.ServeHTTP(addr, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the client may have gone
			c.Add(Class(Make(w, r)))
		})
	}
	return c
}
