package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// settle is how long Watch waits after a change for more of them: setting up
// one container makes dozens.
const settle = 50 * time.Millisecond

// resubscribe is the pause before a broken subscription is tried again.
const resubscribe = time.Second

// Watch returns a channel that gets a value after interfaces, addresses or
// routes of this network namespace have changed. Changes that come together
// give one value. When the kernel's messages overflow, that is a change too,
// so the receiver must look at everything anew. It ends with ctx.
func Watch(ctx context.Context, log *slog.Logger) (<-chan struct{}, error) {
	sock, err := subscribe()
	if err != nil {
		return nil, err
	}
	raw, out := make(chan struct{}, 1), make(chan struct{}, 1)
	go join(ctx, raw, out)
	go func() {
		for {
			err := receive(ctx, sock, raw)
			if ctx.Err() != nil {
				return
			}
			log.Warn("the subscription to network changes broke; subscribing again", "error", err)
			notify(raw)
			for sock, err = subscribe(); err != nil; sock, err = subscribe() {
				log.Error("cannot watch the network", "error", err)
				if !pause(ctx, resubscribe) {
					return
				}
			}
		}
	}()
	return out, nil
}

func subscribe() (*nl.NetlinkSocket, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch the network: %w", err)
	}
	return s, nil
}

// receive tells raw of every message until the socket breaks or ctx ends, and
// closes the socket.
func receive(ctx context.Context, s *nl.NetlinkSocket, raw chan<- struct{}) error {
	stop := context.AfterFunc(ctx, s.Close)
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	for {
		_, _, err := s.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		notify(raw)
	}
}

// join passes on one value for all changes that come within settle.
func join(ctx context.Context, raw <-chan struct{}, out chan<- struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-raw:
		}
		if !pause(ctx, settle) {
			return
		}
		select {
		case <-raw:
		default:
		}
		notify(out)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}
