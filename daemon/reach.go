package daemon

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"siskin.dev/siskin/api"
)

// reachWithin bounds how long backends are waited for before an undo.
const reachWithin = time.Second

// firstRefused says which backend cannot be connected to; "" where all can.
func firstRefused(backends []api.Backend) string {
	ctx, cancel := context.WithTimeout(context.Background(), reachWithin)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for _, b := range backends {
		group.Go(func() error {
			var dialer net.Dialer
			conn, err := dialer.DialContext(ctx, "tcp", b.Address.String())
			if err != nil {
				return fmt.Errorf("the old backend %s does not answer: %w", b.Address, err)
			}
			return conn.Close()
		})
	}
	if err := group.Wait(); err != nil {
		return err.Error()
	}
	return ""
}
