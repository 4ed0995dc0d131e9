package test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"siskin.dev/siskin/test/bed"
)

// outOfOrder is what a broken gRPC server says: over HTTP/2 that is status 200.
const outOfOrder = "out of order"

// A canary that ends every call with UNAVAILABLE, over connections that stand
// and answers of 200, is off by the breaker at the fifth error, and its clients'
// next calls are stable's.
func TestRootFailingGRPC(t *testing.T) {
	for _, f := range bed.Families() {
		t.Run(f.String(), func(t *testing.T) {
			r := bed.NewRouted(bed.New(t))
			at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(f.At(bed.Nearby, 2), port) }
			stable, canary := at(8081), at(8082)
			r.Near.ServeGRPC(stable)
			serveBrokenGRPC(t, r.Near, canary)
			g := &site{staged: &staged{t: t, r: r, family: f, frontend: netip.AddrPortFrom(f.At(bed.VIPs, 10), 80)}}
			g.s = steer(t, r.Bed, r.Host, []string{"up0"})
			g.s.Apply(bed.Service{
				Name: "shop", Proto: "tcp", Frontends: []netip.AddrPort{g.frontend},
				Stable: []netip.AddrPort{stable}, Canary: []netip.AddrPort{canary},
			})
			g.start("{weight: 50%, hold: 10m}", "lease: 1m", "breaker: {errors: 5}", "rollback: {connections: reset}")
			g.awaitWeight(5000)
			breakers := g.pinned().breakers

			calls := callers(t, g, 40)
			b := g.awaitTrip(breakers)
			// A client's third error in a row, and later ones, count a tenth.
			if n, level := b.Of[1].Count, b.Of[1].Level; n < 5 || level < 450 || level >= 540 {
				t.Errorf("the breaker tripped at %d errors and a level of %d, want the fifth", n, level)
			}
			v := g.awaitEnd("RolledBack", 10*time.Second)
			if v.Cause != "breaker tripped" {
				t.Errorf("the cause is %q: %s", v.Cause, v.Reason)
			}
			g.s.Await("the canary has no connections any more", func() bool { return g.s.Version("shop", "canary").Traffic.Active == 0 })
			failed, fine := calls.failed.Load(), calls.fine.Load()
			g.s.Await("calls are answered", func() bool { return calls.fine.Load() > fine+400 })
			if now := calls.failed.Load(); now != failed {
				t.Errorf("%d calls failed after the canary was gone", now-failed)
			}
			calls.stop()
			counted := countedOf(g.s, "shop")["grpc_error"]
			if counted < 5 || counted < int(failed) {
				t.Errorf("%d calls were counted as failed, clients had %d", counted, failed)
			}
			if n := g.s.Version("shop", "stable").Traffic.Errors.Sum(); n > 0 {
				t.Errorf("the kernel counts %d errors of stable", n)
			}
			t.Logf("%d errors until the breaker, %d more in flight, of which clients had %d in all; %s",
				b.Of[1].Count, counted-int(b.Of[1].Count), failed, v.Reason)
		})
	}
}

func serveBrokenGRPC(t *testing.T, at *bed.Namespace, addr netip.AddrPort) {
	t.Helper()
	l := at.Listen(addr)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Error(codes.Unavailable, outOfOrder)
	}))
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("the broken server: %v", err)
		}
	})
}

// calling are clients, each with a connection, that call until they are stopped.
type calling struct {
	fine, failed atomic.Int64 // failed by the server's word, not by a reset
	stop         func()
}

func callers(t *testing.T, g *site, clients int) *calling {
	t.Helper()
	c := &calling{}
	ctx, cancel := context.WithTimeout(t.Context(), 12*bed.Patience)
	var group sync.WaitGroup
	c.stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(c.stop)
	for i := range clients {
		conn, err := grpc.NewClient("passthrough:///"+g.frontend.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
				return g.r.Client.Dial("tcp", netip.AddrPortFrom(g.family.Guest(i), 0), g.frontend)
			}))
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer conn.Close()
			c.call(ctx, t, testpb.NewTestServiceClient(conn))
		})
	}
	return c
}

// call goes on until the context ends. A reset connection is made anew by
// grpc-go, as it is for its users.
func (c *calling) call(ctx context.Context, t *testing.T, client testpb.TestServiceClient) {
	for ctx.Err() == nil {
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: 100}, grpc.WaitForReady(true))
		switch s := status.Convert(err); {
		case err == nil:
			c.fine.Add(1)
		case ctx.Err() != nil:
		case s.Code() == codes.Unavailable && s.Message() == outOfOrder:
			c.failed.Add(1)
		case s.Code() == codes.Unavailable: // a connection that was reset
		default:
			t.Errorf("a call ended with %v", err)
			return
		}
	}
}
