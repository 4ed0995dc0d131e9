package bed

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// grpcService answers as requests ask it to, by the test service of gRPC itself.
type grpcService struct {
	testpb.UnimplementedTestServiceServer
	*Counter
}

// ServeGRPC starts a server of grpc-go at each address, which counts how it
// ends calls; it ends with the test.
func (n *Namespace) ServeGRPC(at ...netip.AddrPort) *Counter {
	n.tb.Helper()
	s := grpcService{Counter: &Counter{}}
	server := grpc.NewServer(grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream))
	testpb.RegisterTestServiceServer(server, s)
	done := make(chan error, len(at))
	for _, addr := range at {
		l := n.Listen(addr)
		go func() { done <- server.Serve(l) }()
	}
	n.tb.Cleanup(func() {
		server.Stop()
		for range at {
			if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				n.tb.Errorf("%s: the gRPC server ended: %v", n.Role, err)
			}
		}
	})
	return s.Counter
}

// GRPCCode is what siskin calls a gRPC status.
func GRPCCode(err error) string {
	if status.Code(err) == codes.OK {
		return "grpc_ok"
	}
	return "grpc_error"
}

func (s grpcService) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	resp, err := handle(ctx, req)
	s.Add(GRPCCode(err))
	return resp, err
}

// stream leaves out what the client gave up: nobody answers that.
func (s grpcService) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	err := handle(srv, stream)
	if stream.Context().Err() == nil {
		s.Add(GRPCCode(err))
	}
	return err
}

func asked(s *testpb.EchoStatus) error {
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}

// UnaryCall ends with the status that is asked for: trailers alone, unless it
// is OK.
func (grpcService) UnaryCall(_ context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: &testpb.Payload{Body: Filled("fine\n", int(req.ResponseSize))}}, asked(req.ResponseStatus)
}

// StreamingOutputCall sends messages before it ends with the status, and none
// of those that the client does not wait for.
func (grpcService) StreamingOutputCall(req *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for _, p := range req.ResponseParameters {
		m := &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: Filled("fine\n", int(p.Size))}}
		if err := out.Send(m); err != nil {
			return err
		}
	}
	return asked(req.ResponseStatus)
}

// FullDuplexCall answers each message until the client has no more.
func (grpcService) FullDuplexCall(both grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		req, err := both.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = both.Send(&testpb.StreamingOutputCallResponse{Payload: req.Payload})
		}
		if err != nil {
			return err
		}
	}
}

// GRPC connects to a server of gRPC; the connection ends with the test.
func (n *Namespace) GRPC(to netip.AddrPort) (testpb.TestServiceClient, io.Closer, error) {
	conn, err := grpc.NewClient("passthrough:///"+to.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return n.Dial("tcp", netip.AddrPort{}, to)
		}))
	if err != nil {
		return nil, nil, err
	}
	return testpb.NewTestServiceClient(conn), conn, nil
}
