package bpf

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// A Piece is what the kernel hands over of an HTTP/2 connection: of the server
// the frames that carry fields and ends of streams, in the order of their bytes
// and cut anywhere; of the client the head of a frame that begins or ends a
// stream. Serial counts the pieces of a direction, so a gap is a loss.
type Piece struct {
	Slot     uint32
	OpenedNS uint64 // with Slot: which flow
	Backend  uint32
	NS       uint64 // monotonic: when it came by
	ToClient bool
	Serial   uint32
	Lost     bool // the kernel has lost the thread of this direction
	Upgraded bool // the connection was HTTP/1 and the request is stream 1
	Over     bool // this direction's side has ended the connection
	Data     []byte
}

const pieceHead = int(unsafe.Offsetof(objPiece{}.Data))

// Pieces reads what is handed over. There may be one reader.
type Pieces struct {
	r      *ringbuf.Reader
	record ringbuf.Record
}

// NewPieces reads the pieces map; it does not own m.
func NewPieces(m *ebpf.Map) (*Pieces, error) {
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("open the ring buffer of HTTP/2 frames: %w", err)
	}
	return &Pieces{r: r}, nil
}

// Read waits for the next piece. Its data is good until the next Read. After
// Close it fails with ringbuf.ErrClosed.
func (p *Pieces) Read() (Piece, error) {
	if err := p.r.ReadInto(&p.record); err != nil {
		return Piece{}, fmt.Errorf("read an HTTP/2 frame: %w", err)
	}
	raw := p.record.RawSample
	if len(raw) < pieceHead {
		return Piece{}, fmt.Errorf("read an HTTP/2 frame: %d bytes are none", len(raw))
	}
	native := binary.NativeEndian
	length, flags := native.Uint16(raw[28:]), objPieceFlag(raw[31])
	if int(length) > len(raw)-pieceHead {
		return Piece{}, fmt.Errorf("read an HTTP/2 frame: it says %d bytes and has %d", length, len(raw)-pieceHead)
	}
	return Piece{
		OpenedNS: native.Uint64(raw), NS: native.Uint64(raw[8:]), Slot: native.Uint32(raw[16:]), Backend: native.Uint32(raw[20:]),
		Serial: native.Uint32(raw[24:]), ToClient: raw[30] != 0,
		Lost: flags&objPieceFlagPIECE_LOST != 0, Upgraded: flags&objPieceFlagPIECE_UPGRADED != 0,
		Over: flags&objPieceFlagPIECE_OVER != 0,
		Data: raw[pieceHead:][:length],
	}, nil
}

// Waiting tells how many bytes wait to be read.
func (p *Pieces) Waiting() int { return p.r.AvailableBytes() }

// Close ends a Read that waits, and gives the memory back.
func (p *Pieces) Close() error { return p.r.Close() }

// Heard is an answer that user space has understood (struct heard).
type Heard = objHeard

// What is Heard: an answer; one whose status could not be known; or one that is
// waited for still.
const (
	HeardAnswer  = uint32(objHeardWhatHEARD_ANSWER)
	HeardLost    = uint32(objHeardWhatHEARD_LOST)
	HeardWaiting = uint32(objHeardWhatHEARD_WAITING)
)

const (
	heardAt = 16 // room for a link-layer header
	// HeardMost is how many answers Tell takes at a time.
	HeardMost = 64
)

// Tell counts answers where the kernel counts its own, and books them for their
// releases. program is siskin_heard.
func Tell(program *ebpf.Program, all []Heard) error {
	if len(all) == 0 {
		return nil
	}
	if len(all) > HeardMost {
		return fmt.Errorf("tell %d answers: at most %d at a time", len(all), HeardMost)
	}
	packet := make([]byte, heardAt, heardAt+len(all)*int(unsafe.Sizeof(Heard{})))
	packet, err := binary.Append(packet, binary.NativeEndian, all)
	if err != nil {
		return fmt.Errorf("tell answers: %w", err)
	}
	if _, err := program.Run(&ebpf.RunOptions{Data: packet}); err != nil {
		return fmt.Errorf("tell answers: %w", err)
	}
	return nil
}
