package streams

// firstTable is the size in bytes of every dynamic table until its encoder says
// another (RFC 9113, section 6.5.2).
const firstTable = 4096

// Limits bound the memory of a Decoder. What lies above them is lost, never
// wrong. Zero means the value in brackets.
type Limits struct {
	// Conns are known at most; the one that was silent for longest gives way
	// to a new one (16,384).
	Conns int
	// StreamsPerConn may wait at a time on a connection (1,024).
	StreamsPerConn int
	// HeaderBytes is the longest block of header fields that is read, as it
	// comes by (65,536). A longer one makes its connection lost.
	HeaderBytes int
	// TableBytes is the largest dynamic table that a server's encoder may make
	// use of (16,384); less than the 4,096 that all begin with is taken for
	// that. A larger one makes its connection lost.
	TableBytes int
}

func (l Limits) orDefault() Limits {
	if l.Conns <= 0 {
		l.Conns = 16384
	}
	if l.StreamsPerConn <= 0 {
		l.StreamsPerConn = 1024
	}
	if l.HeaderBytes <= 0 {
		l.HeaderBytes = 65536
	}
	if l.TableBytes <= 0 {
		l.TableBytes = 16384
	}
	l.TableBytes = max(l.TableBytes, firstTable)
	return l
}

// Stats are what a Decoder did, in all, and what it holds now.
type Stats struct {
	Pieces   uint64
	Answers  [Lost + 1]uint64 // by Outcome
	CutShort uint64           // answered, and broken off by the server later

	Gaps      uint64 // directions that the kernel or the way from it lost
	Errors    uint64 // directions that were not HTTP/2, or above a limit,
	LastError error  // and why the last one was given up
	Overfull  uint64 // requests above StreamsPerConn
	Evicted   uint64 // connections above Conns
	// Dark are pieces of connections of which no direction can be read: of
	// their requests not even the number is known.
	Dark  uint64
	Stale uint64 // pieces of connections whose slot has another one since

	Conns   int    // known
	Waiting int    // requests without an end, on all of them
	Bytes   uint64 // held at most, in all
}
