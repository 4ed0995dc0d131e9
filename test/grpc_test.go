package test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"siskin.dev/siskin/test/bed"
)

// goGRPC calls with grpc-go on one connection: calls that end well and not, in
// trailers alone and behind messages, and some that the client gives up.
func goGRPC(atOnce, rounds int) asker {
	return asker{"grpc-go", func(t *testing.T, from *bed.Namespace, to netip.AddrPort) bed.Answered {
		client, conn, err := from.GRPC(to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 12*bed.Patience)
		defer cancel()
		var (
			group sync.WaitGroup
			count bed.Counter
		)
		for range atOnce {
			group.Go(func() {
				for range rounds {
					if err := callAll(ctx, client, &count); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		group.Wait()
		return count.Answered()
	}}
}

// callAll makes a call of each kind.
func callAll(ctx context.Context, client testpb.TestServiceClient, count *bed.Counter) error {
	for _, code := range []codes.Code{codes.OK, codes.NotFound, codes.Unavailable} {
		ends := &testpb.EchoStatus{Code: int32(code), Message: "as asked"}
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{ResponseStatus: ends, ResponseSize: 3000})
		count.Add(bed.GRPCCode(err))
		count.Add(bed.GRPCCode(streamed(ctx, client, ends)))
	}
	_, err := client.EmptyCall(ctx, &testpb.Empty{}) // nobody serves it
	count.Add(bed.GRPCCode(err))
	count.Add(bed.GRPCCode(duplex(ctx, client)))
	return giveUp(ctx, client)
}

// streamed takes three messages and the end.
func streamed(ctx context.Context, client testpb.TestServiceClient, ends *testpb.EchoStatus) error {
	s, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{
		ResponseStatus: ends, ResponseParameters: []*testpb.ResponseParameters{{Size: 10}, {Size: 20000}, {Size: 10}},
	})
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func duplex(ctx context.Context, client testpb.TestServiceClient) error {
	s, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: []byte("more")}}); err != nil {
			return err
		}
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if _, err = s.Recv(); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// giveUp cancels a call that is being answered.
func giveUp(ctx context.Context, client testpb.TestServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := client.FullDuplexCall(ctx)
	if err == nil {
		err = s.Send(&testpb.StreamingOutputCallRequest{})
	}
	if err == nil {
		_, err = s.Recv()
	}
	return err
}
