package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// GRPC asks the health service that gRPC defines, grpc.health.v1.Health/Check,
// in the clear
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
type GRPC struct {
	Service string // "": the server as a whole
}

// Statuses of gRPC, and of HealthCheckResponse.
const (
	grpcOK            = 0
	grpcNotFound      = 5
	grpcUnimplemented = 12

	serving    = 1
	notServing = 2
)

// Ask implements Probe. One call is a request with one message, so HTTP/2 as
// the standard library has it is all that it takes.
func (p GRPC) Ask(ctx context.Context, b Backend) error {
	conn, err := dial(ctx, b.Addr)
	if err != nil {
		return err
	}
	// A transport keeps the connection of a request that got no answer.
	defer conn.Close()
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		Protocols:   new(http.Protocols),
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	body := frame(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), p.Service))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.Addr.String()+"/grpc.health.v1.Health/Check", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	for key, value := range map[string]string{"Content-Type": "application/grpc", "Te": "trailers", "User-Agent": userAgent} {
		req.Header.Set(key, value)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %d: it does not speak gRPC here", resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, bodyLimit))
	if err != nil {
		return fmt.Errorf("read the response: %w", err)
	}
	if err := p.call(resp); err != nil {
		return err
	}
	return p.verdict(raw)
}

// frame puts a message into gRPC's frame: not compressed, its length, itself.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// call tells how the call itself ended.
func (p GRPC) call(resp *http.Response) error {
	status, text := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if status == "" { // without a message the trailers come as the head
		status, text = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	code, err := strconv.Atoi(status)
	switch {
	case err != nil:
		return errors.New("the response has no gRPC status")
	case code == grpcUnimplemented:
		return errors.New("it does not serve grpc.health.v1.Health")
	case code == grpcNotFound:
		return fmt.Errorf("its health service does not know the service %q", p.Service)
	case code != grpcOK:
		return fmt.Errorf("gRPC status %d: %s", code, text)
	}
	return nil
}

var errGarbled = errors.New("the response is no HealthCheckResponse")

// verdict reads the framed response: field 1 is the status.
func (p GRPC) verdict(raw []byte) error {
	if len(raw) < 5 || raw[0] != 0 || int(binary.BigEndian.Uint32(raw[1:])) != len(raw)-5 {
		return errGarbled
	}
	status := uint64(0)
	for raw = raw[5:]; len(raw) > 0; {
		field, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return errGarbled
		}
		raw = raw[n:]
		if field == 1 && kind == protowire.VarintType {
			status, n = protowire.ConsumeVarint(raw)
		} else {
			n = protowire.ConsumeFieldValue(field, kind, raw)
		}
		if n < 0 {
			return errGarbled
		}
		raw = raw[n:]
	}
	switch status {
	case serving:
		return nil
	case notServing:
		return errors.New("it says NOT_SERVING")
	}
	return fmt.Errorf("it says status %d, not SERVING", status)
}
