package streams

// Outcome is what became of a request.
type Outcome uint8

const (
	// Answered: by Status and, for a gRPC call, by GRPC.
	Answered Outcome = iota
	// Failed: the server left it without an answer, or a gRPC call without
	// grpc-status, which makes GRPC 2, unknown.
	Failed
	// Refused: the server did not begin with it, so the client may ask again.
	// One is no failure; a server that refuses all is no good one either.
	Refused
	// Faulted: the server ended it for the client's fault: HTTP/2's 400.
	Faulted
	// Aborted: the client gave it up.
	Aborted
	// Lost: nobody knows.
	Lost
)

func (o Outcome) String() string {
	return [...]string{"answered", "failed", "refused", "faulted", "aborted", "lost"}[min(o, Lost)]
}

// NoGRPC is the GRPC of an answer that is none.
const NoGRPC = -1

// grpcUnknown is the status of a call whose server never said one
// (gRPC's "Status codes and their use": UNKNOWN).
const grpcUnknown = 2

// Answer is how a request ended.
type Answer struct {
	Conn    Conn
	Outcome Outcome
	// Status is that of the final response, 100 to 999. It is 0 where Outcome
	// is not Answered, but for a call that Failed behind its response's HEADERS.
	Status int
	GRPC   int // grpc-status, up to 32,767, or NoGRPC
	// BeganNS is when the request's HEADERS began to come by, 0 where that was
	// not seen; EndedNS when the response's did, for gRPC too, or where there
	// is none, when that became certain.
	BeganNS, EndedNS uint64
}

// Wait is the oldest request of a connection that waits for its response's
// HEADERS still. A gRPC call that is being answered does not wait.
type Wait struct {
	Conn    Conn
	BeganNS uint64
	Heard   [2]uint32 // so many pieces of each Way are known, lost ones too
}
