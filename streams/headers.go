package streams

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

var errFields = errors.New("header block that is not HPACK")

// response is what a server's block of header fields says.
type response struct {
	statuses int // how many :status there are
	status   int // the last; 0 where it is no number of three digits
	grpc     bool
	hasCode  bool
	code     int // grpc-status; unknown where it is no number, or none that anybody has
}

// valid says whether the fields can be a response: with one status, of three
// digits (RFC 9113, section 8.3.2).
func (h *response) valid() bool { return h.statuses == 1 && h.status != 0 }

func (h *response) interim() bool { return h.status < 200 }

func (h *response) field(f hpack.HeaderField) {
	switch f.Name {
	case ":status":
		h.statuses++
		h.status = threeDigits(f.Value)
	case "content-type":
		h.grpc = isGRPC(f.Value)
	case "grpc-status":
		h.hasCode = true
		h.code = grpcUnknown
		if n, err := strconv.ParseUint(f.Value, 10, 15); err == nil {
			h.code = int(n)
		}
	}
}

func threeDigits(s string) int {
	if len(s) != 3 || s[0] == '0' {
		return 0
	}
	n := 0
	for i := range 3 {
		if s[i] < '0' || s[i] > '9' {
			return 0
		}
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// isGRPC knows application/grpc and what may follow it. gRPC-Web, whose
// trailers lie in the body, is not meant.
func isGRPC(contentType string) bool {
	const name = "application/grpc"
	if len(contentType) < len(name) || !strings.EqualFold(contentType[:len(name)], name) {
		return false
	}
	return len(contentType) == len(name) || strings.IndexByte("+; ", contentType[len(name)]) >= 0
}

// table is a server's dynamic table, with its decoder.
//
// How large it is the encoder says itself, at the beginning of the block from
// which on it counts (RFC 7541, section 4.2). What the client allowed by
// SETTINGS_HEADER_TABLE_SIZE only bounds that, so it need not be known; an encoder
// that goes beyond it loses its client anyhow.
type table struct {
	hpack *hpack.Decoder
	most  uint32 // bytes it could have at the most: its list does not shrink
}

// begin makes the table that each connection has at first.
func (t *table) begin(limit int, emit func(hpack.HeaderField)) {
	if t.hpack == nil {
		t.hpack = hpack.NewDecoder(firstTable, emit)
		t.hpack.SetAllowedMaxDynamicTableSize(uint32(limit))
		t.most = firstTable
	}
	t.hpack.SetMaxDynamicTableSize(0) // forgets all
	t.hpack.SetMaxDynamicTableSize(firstTable)
}

// read decodes a whole block, of which the decoder keeps the address.
func (t *table) read(block []byte) error {
	// There may be two updates, the smallest size on the way and the last. The
	// decoder takes the second for one in the middle of a block unless the
	// table is empty, so each is a block of its own to it.
	for len(block) > 0 && block[0]>>5 == 1 {
		size, n := sizeUpdate(block)
		if n == 0 {
			return errFields
		}
		if err := t.write(block[:n]); err != nil {
			return err
		}
		t.most = max(t.most, size)
		block = block[n:]
	}
	return t.write(block)
}

func (t *table) write(block []byte) error {
	_, err := t.hpack.Write(block)
	return errors.Join(err, t.hpack.Close())
}

// sizeUpdate reads a dynamic table size update (RFC 7541, sections 5.1 and 6.3)
// and says how long it is, 0 where it does not end or is beyond all reason.
func sizeUpdate(b []byte) (size uint32, n int) {
	size = uint32(b[0] & 31)
	if size < 31 {
		return size, 1
	}
	for i, c := range b[1:min(len(b), 5)] {
		size += uint32(c&127) << (7 * i)
		if c < 128 {
			return size, i + 2
		}
	}
	return 0, 0
}

// bytes is what the table may take: an entry has 40 bytes beside its text where
// RFC 7541 reckons 32, text is rounded up, and the list of entries may have
// twice the length that it needs.
func (t *table) bytes() uint64 {
	if t.hpack == nil {
		return 0
	}
	return 512 + 3*uint64(t.most)
}
