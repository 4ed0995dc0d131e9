package steering

import (
	"errors"
	"fmt"
)

// A Word is one release's weights as the kernel reads them: four shares of 14
// bits, in basis points, for the version slots 1 to 4, then an 8-bit epoch in
// bits 56 to 63. The zero shares mean that stable gets everything.
//
// Slot 1 owns the buckets from the bottom up, [0, w1); slot 2 from the top
// down, [10000-w2, 10000); slot 3 lies above slot 1 and slot 4 below slot 2.
// So changing w1 or w2 only moves clients between that version and stable, as
// long as slots 3 and 4 are empty; with those it cannot hold for all.
type Word uint64

const (
	shareBits = 14
	shareMask = 1<<shareBits - 1
	epochBits = 56 // the epoch lies above the four shares
)

// ErrOverWhole says that the shares of the versions beside stable are more
// than 100 % together.
var ErrOverWhole = errors.New("the versions beside stable ask for more than 100%; lower one of them")

// MakeWord packs the shares of slots 1 to 4 and the epoch. It returns
// ErrOverWhole where the shares do not fit into one service.
func MakeWord(shares [4]Share, epoch uint8) (Word, error) {
	var sum uint32
	w := Word(epoch) << epochBits
	for i, s := range shares {
		sum += uint32(s)
		w |= Word(s&shareMask) << (i * shareBits)
	}
	if sum > uint32(Whole) {
		return 0, fmt.Errorf("%s in all: %w", percent(sum), ErrOverWhole)
	}
	return w, nil
}

// percent writes basis points that may be more than a Share holds.
func percent(points uint32) string { return fmt.Sprintf("%g%%", float64(points)/100) }

// Shares returns the shares of slots 1 to 4.
func (w Word) Shares() [4]Share {
	var out [4]Share
	for i := range out {
		out[i] = Share(w >> (i * shareBits) & shareMask)
	}
	return out
}

// Share returns what a slot gets; of slot 0, stable, what the others leave.
func (w Word) Share(slot uint8) Share {
	shares := w.Shares()
	if slot > 0 {
		return shares[slot-1]
	}
	return Whole - (shares[0] + shares[1] + shares[2] + shares[3])
}

// Epoch returns the number of the word's change, modulo 256.
func (w Word) Epoch() uint8 { return uint8(w >> epochBits) }

// IsZero reports whether stable gets everything; the epoch does not matter.
func (w Word) IsZero() bool { return w<<(64-epochBits) == 0 }

// Next returns the word that follows w with the given shares: the epoch goes
// up by one where they differ, and w itself comes back where they do not.
func (w Word) Next(shares [4]Share) (Word, error) {
	if shares == w.Shares() {
		return w, nil
	}
	return MakeWord(shares, w.Epoch()+1)
}

// Zeroed returns the word that follows w in which stable gets everything.
func (w Word) Zeroed() Word {
	if w.IsZero() {
		return w
	}
	return Word(w.Epoch()+1) << epochBits
}

// Pick returns the version slot that owns a bucket in [0, 10000). The kernel
// decides in the same way.
func (w Word) Pick(bucket uint16) uint8 {
	s := w.Shares()
	b := Share(bucket)
	switch {
	case b < s[0]:
		return 1
	case b >= Whole-s[1]:
		return 2
	case b < s[0]+s[2]:
		return 3
	case b >= Whole-s[1]-s[3]:
		return 4
	}
	return 0
}
