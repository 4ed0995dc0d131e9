package bed

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Chat keeps connections open and asks something on each of them all the
// time, as clients with keep-alive do.
type Chat struct {
	Asked atomic.Int64

	stop  chan struct{}
	group sync.WaitGroup
	mu    sync.Mutex
	errs  []error
}

// ChatWith opens connections from different addresses to a server that
// answers lines, and talks on each until Stop. Whatever server answers first
// must go on answering.
func (n *Namespace) ChatWith(connections int, to netip.AddrPort) *Chat {
	n.tb.Helper()
	family := V6
	if to.Addr().Is4() {
		family = V4
	}
	c := &Chat{stop: make(chan struct{})}
	for i := range connections {
		from := netip.AddrPortFrom(family.Visitor(16000+i), 0)
		talk, err := n.TalkTo(from, to)
		if err != nil {
			n.tb.Fatalf("open a connection from %v to %v: %v", from, to, err)
		}
		c.group.Go(func() {
			defer talk.Close()
			if err := c.ask(talk); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.errs = append(c.errs, fmt.Errorf("connection from %v to %v: %w", from, to, err))
			}
		})
	}
	n.tb.Cleanup(func() { _ = c.Stop() }) // again, when the test failed before
	return c
}

func (c *Chat) ask(talk *Talk) error {
	first := ""
	for {
		select {
		case <-c.stop:
			return nil
		default:
		}
		name, err := talk.Ask("who")
		if err != nil {
			return err
		}
		if first == "" {
			first = name
		}
		if name != first {
			return fmt.Errorf("%s answered, after %s", name, first)
		}
		c.Asked.Add(1)
	}
}

// Stop ends the talk and returns what went wrong on any connection.
func (c *Chat) Stop() error {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.group.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}
