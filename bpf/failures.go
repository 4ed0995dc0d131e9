package bpf

import "fmt"

// Failures are the answers that count as errors of the server, in a release's
// evidence and in its breaker. The zero value: none does, only connections fail.
type Failures struct {
	status [4]uint64 // bit n: HTTP status 400 + n
	grpc   uint32    // bit n: grpc-status n
}

// The HTTP statuses and gRPC codes that can be failures.
const (
	minFailure, maxFailure = 400, 599
	maxGRPC                = 16
)

// FailuresOf makes Failures of HTTP statuses (400 to 599) and gRPC codes (1 to
// 16).
func FailuresOf(statuses, grpc []int) (Failures, error) {
	var f Failures
	for _, s := range statuses {
		if s < minFailure || s > maxFailure {
			return f, fmt.Errorf("HTTP status %d is no failure: name some from %d to %d", s, minFailure, maxFailure)
		}
		n := s - minFailure
		f.status[n/64] |= 1 << (n % 64)
	}
	for _, code := range grpc {
		if code < 1 || code > maxGRPC {
			return f, fmt.Errorf("grpc-status %d is no failure: name some from 1 to %d", code, maxGRPC)
		}
		f.grpc |= 1 << code
	}
	return f, nil
}

// Status tells whether an HTTP status is one of them.
func (f Failures) Status(s int) bool {
	n := s - minFailure
	return n >= 0 && n <= maxFailure-minFailure && f.status[n/64]>>(n%64)&1 != 0
}

// GRPC tells whether a grpc-status is one of them.
func (f Failures) GRPC(code int) bool { return code >= 0 && code <= maxGRPC && f.grpc>>code&1 != 0 }
