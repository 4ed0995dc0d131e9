package streams

// NoGRPC is the GRPC of an answer that is none.
const NoGRPC = -1

// grpcUnknown is the status of a call whose server never said one
// (gRPC's "Status codes and their use": UNKNOWN).
const grpcUnknown = 2

// Answer is how a request ended. Where Status is 0, nothing was answered: then
// it is Lost, or it Failed, or it is neither and the server refused it or
// ended it for the client's fault (fault.go).
type Answer struct {
	Conn   Conn
	Status int // of the final response; 0: none
	GRPC   int // grpc-status, or NoGRPC
	// Failed: the server left the request without an answer, or without
	// grpc-status, which makes GRPC 2, unknown. A status that means an error is
	// no failure in this sense.
	Failed bool
	// Lost: nobody knows. Status is 0, GRPC is NoGRPC.
	Lost bool
	// BeganNS is when the request's HEADERS began to come by, 0 where that was
	// not seen; EndedNS when the response's did, for gRPC too, or where there
	// is none, when that became certain.
	BeganNS, EndedNS uint64
	// OldestNS is when the oldest request of the connection began that waits
	// for its response's HEADERS still; 0: none does. A gRPC call that is being
	// answered does not wait.
	OldestNS uint64
}
