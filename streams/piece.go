// Package streams reads HTTP/2 (RFC 9113) and gRPC over it, as far as it tells
// which request was answered by what, and when.
//
// The kernel hands over the frames that matter, in pieces as they came by
// (Piece); a Decoder puts them together again and says of each request how it
// ended (Answer). Its parts: frames.go finds frames in pieces, headers.go reads
// header blocks (HPACK, RFC 7541), requests.go knows who waits, connection.go
// brings question and answer together, fault.go says whose fault a reset is.
//
// Only the server's header blocks are read. What a client asks for decides
// nothing here: whether an answer is gRPC is said by the answer, and that it was
// asked by the number of its stream. So no path, cookie or credential ever lies
// in this memory, and a client cannot fill it.
//
// What is not certain is told as lost, never guessed. A missing piece makes all
// that waits on its connection lost; one of the server's also all that is asked
// there later on, since its table has a hole.
package streams

// Conn is one connection: a slot of the flow table and when it was opened, since
// slots are used again.
type Conn struct {
	Slot     uint32
	Backend  uint32 // that it was given to
	OpenedNS uint64
}

// Way is a direction.
type Way uint8

const (
	ToServer Way = iota
	ToClient
)

// Piece is what came by in one segment, of one direction. Of the server the Data
// of all pieces, by Serial, joined, are its frames; without DATA, and perhaps
// without others that say nothing of requests. A frame may begin in one piece and
// end in another. Of the client a piece is the head of a HEADERS or a RST_STREAM
// (RFC 9113, section 4.1), and no more; those of trailers may be missing.
type Piece struct {
	Conn Conn
	Way  Way
	// Serial numbers the pieces of a direction, from 0. It may come round.
	Serial uint32
	NS     uint64 // when the segment came by, monotonic
	// Lost: nothing that comes after Data in this direction can be read.
	Lost bool
	// End: the connection is over. Way says who ended it: ToClient the server,
	// which leaves without an answer whoever still waits; ToServer the client,
	// which then waits for nothing any more.
	End bool
	// Upgraded: HTTP/2 was begun by an HTTP/1.1 request, which is stream 1 and
	// was asked at NS (RFC 7540, section 3.2).
	Upgraded bool
	Data     []byte // only read in Feed
}
