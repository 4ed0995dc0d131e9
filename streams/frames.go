package streams

import (
	"encoding/binary"
	"errors"
)

// Frame types and flags of RFC 9113, section 6, that are looked at. All others
// are stepped over.
const (
	frameHeaders      = 0x1
	frameReset        = 0x3
	framePush         = 0x5
	frameGoAway       = 0x7
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	frameHead  = 9 // bytes before each payload (section 4.1)
	resetBytes = 4
	awayBytes  = 8 // the fixed part of GOAWAY
	// decoration is what a HEADERS or PUSH_PROMISE may have beside fields.
	decoration = 1 + 5 + 255
	// keptBuffer is how long a buffer may be to be kept for the next frame.
	keptBuffer = 2048
)

var (
	errOrder  = errors.New("frames out of order")
	errSize   = errors.New("frame of a wrong size")
	errStream = errors.New("frame on a stream that it cannot be on")
	errLong   = errors.New("header block above the limit")
)

type frame struct {
	kind, flags uint8
	stream      uint32
	length      uint32
	ns          uint64 // when its first byte came by
}

func (f frame) has(flag uint8) bool { return f.flags&flag != 0 }

// headOf reads the head of a frame.
func headOf(b []byte) frame {
	return frame{
		length: binary.BigEndian.Uint32(b) >> 8, kind: b[3], flags: b[4],
		stream: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
	}
}

// reader finds the server's frames in its pieces.
type reader struct {
	data []byte // of the piece in hand, what is not read yet
	ns   uint64 // when that came by
	err  error  // why scan ended, where it is not the end of data

	frame   frame
	payload []byte // of frame, as much as is wanted; until the next scan
	// opener is the HEADERS or PUSH_PROMISE that began the last block of
	// header fields; while open, it goes on in CONTINUATION.
	opener frame
	open   bool

	head   [frameHead]byte
	held   int  // bytes in head
	headed bool // frame has begun
	left   uint32
	kept   []byte // payload from earlier pieces
}

// scan goes on to the next frame that is there as a whole.
func (r *reader) scan(longest int) bool {
	if !r.headed && !r.begin(longest) {
		return false
	}
	keep := r.wanted()
	n := min(int(r.left), len(r.data))
	part := r.data[:n]
	r.data = r.data[n:]
	r.left -= uint32(n)
	if n == int(r.frame.length) {
		r.payload = part[:keep]
	} else {
		r.kept = append(r.kept, part[:min(n, keep-len(r.kept))]...)
		r.payload = r.kept
	}
	if r.left > 0 {
		return false
	}
	r.headed = false
	return true
}

// begin reads the head of a frame.
func (r *reader) begin(longest int) bool {
	if r.held == 0 {
		if len(r.data) == 0 {
			return false
		}
		r.frame.ns = r.ns
	}
	n := copy(r.head[r.held:], r.data)
	r.data = r.data[n:]
	r.held += n
	if r.held < frameHead {
		return false
	}
	r.held = 0
	ns := r.frame.ns
	r.frame = headOf(r.head[:])
	r.frame.ns = ns
	r.kept = emptied(r.kept)
	r.left = r.frame.length
	r.err = r.check()
	if r.wanted() > longest+decoration {
		r.err = errLong
	}
	r.headed = r.err == nil
	return r.headed
}

// wanted is how much of the frame's payload is worth keeping.
func (r *reader) wanted() int {
	switch r.frame.kind {
	case frameReset:
		return resetBytes
	case frameGoAway:
		return awayBytes
	case frameHeaders, framePush, frameContinuation:
		return int(r.frame.length)
	}
	return 0
}

// check holds a frame against the rules by which we stay in step: a block of
// header fields is one unit on one stream (section 4.3), and frames have the
// sizes that they must have. It notes where a block begins.
func (r *reader) check() error {
	f := r.frame
	if r.open != (f.kind == frameContinuation) || r.open && f.stream != r.opener.stream {
		return errOrder
	}
	switch f.kind {
	case frameHeaders, framePush:
		r.opener = f
		r.open = !f.has(flagEndHeaders)
	case frameContinuation:
		r.open = !f.has(flagEndHeaders)
	case frameReset:
		if f.length != resetBytes {
			return errSize
		}
	case frameGoAway:
		if f.length < awayBytes {
			return errSize
		}
		if f.stream != 0 {
			return errStream
		}
		return nil
	default:
		return nil
	}
	if f.stream == 0 {
		return errStream
	}
	return nil
}

// fields returns the piece of a header block that a frame carries (sections 6.2,
// 6.6, 6.10).
func (r *reader) fields() ([]byte, error) {
	f, p := r.frame, r.payload
	if f.kind == frameContinuation {
		return p, nil
	}
	var before, padding int
	if f.has(flagPadded) {
		if len(p) == 0 {
			return nil, errSize
		}
		padding = int(p[0])
		before = 1
	}
	switch {
	case f.kind == framePush:
		before += 4 // the promised stream
	case f.has(flagPriority):
		before += 5
	}
	if len(p) < before+padding {
		return nil, errSize
	}
	return p[before : len(p)-padding], nil
}

// emptied returns b without content, and without its memory where that is much.
func emptied(b []byte) []byte {
	if cap(b) > keptBuffer {
		return nil
	}
	return b[:0]
}
