package streams

import "unsafe"

// progress is how far a request has come.
type progress uint8

const (
	waits   progress = iota // for HEADERS
	headed                  // gRPC: has them, waits for trailers
	settled                 // its answer was told, or there is none
)

// request is a stream that a client opened.
type request struct {
	beganNS, headedNS uint64
	id                uint32
	status            uint16 // when headed
	is                progress
}

// requests are those of a connection that are not settled, and some that are.
// A client's stream numbers only rise (RFC 9113, section 5.1.1), so they are
// found by bisection, and the oldest is first, with no memory taken for each.
type requests struct {
	list   []request
	first  int // all before it are settled
	oldest int // none before it waits
	open   int // are not settled
}

func (q *requests) add(id uint32, ns uint64) {
	if q.open == 0 {
		q.list, q.first, q.oldest = q.list[:0], 0, 0
	} else if len(q.list) == cap(q.list) && q.open <= len(q.list)/2 {
		q.sweep()
	}
	q.list = append(q.list, request{id: id, beganNS: ns})
	q.open++
}

// sweep makes room where the settled ones lie.
func (q *requests) sweep() {
	kept := q.list[:0]
	for _, r := range q.list[q.first:] {
		if r.is != settled {
			kept = append(kept, r)
		}
	}
	q.list, q.first, q.oldest = kept, 0, 0
}

// find returns the request of a stream, nil where it is settled or unknown. What
// it returns holds until the next add.
func (q *requests) find(id uint32) *request {
	low, high := q.first, len(q.list)
	for low < high {
		middle := int(uint(low+high) / 2)
		switch r := &q.list[middle]; {
		case r.id < id:
			low = middle + 1
		case r.id > id:
			high = middle
		case r.is == settled:
			return nil
		default:
			return r
		}
	}
	return nil
}

func (q *requests) settle(r *request) {
	r.is = settled
	q.open--
	for q.first < len(q.list) && q.list[q.first].is == settled {
		q.first++
	}
}

// oldestNS is when the oldest that waits began; 0: none waits.
func (q *requests) oldestNS() uint64 {
	q.oldest = max(q.oldest, q.first)
	for q.oldest < len(q.list) && q.list[q.oldest].is != waits {
		q.oldest++
	}
	if q.oldest == len(q.list) {
		return 0
	}
	return q.list[q.oldest].beganNS
}

// above calls do for each that is not settled and has a number above id, the
// oldest first; do settles it.
func (q *requests) above(id uint32, do func(*request)) {
	for i := q.first; i < len(q.list); i++ {
		if r := &q.list[i]; r.is != settled && r.id > id {
			do(r)
		}
	}
}

func (q *requests) bytes() uint64 {
	return uint64(cap(q.list)) * uint64(unsafe.Sizeof(request{}))
}
