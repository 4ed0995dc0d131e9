package steering

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
)

// ErrNoWeight says that none of the active backends has a weight.
var ErrNoWeight = errors.New("all backend weights are zero; give at least one backend a weight of 1 or more")

// ErrTooManyBackends says that even the largest table is too small.
var ErrTooManyBackends = errors.New("too many backends in one version")

// tableSizes are primes, each about four times the one before. Another size is
// another table, in which most clients move: so a version that grows moves
// them only at 11, 41 and 164 backends, and one that shrinks never does. A
// single backend needs no more than one entry: whoever moves when a second one
// comes moves there.
var tableSizes = [...]uint32{1, 1021, 4093, 16381, 65521}

// A Member is a backend as a Maglev table sees it.
type Member struct {
	ID     uint32 // what the table's entries hold
	Addr   netip.AddrPort
	Weight uint32
	Rests  bool // it is given nothing now, but keeps its place
}

// TableSize returns how many entries the members need: one for a single member,
// else at least 100 for each, and enough that the one with the smallest weight has one entry or more.
func TableSize(members []Member) (uint32, error) {
	active, total, least := uint64(0), uint64(0), uint64(math.MaxUint64)
	for _, m := range members {
		if m.Weight == 0 {
			continue
		}
		active++
		total += uint64(m.Weight)
		least = min(least, uint64(m.Weight))
	}
	if active == 0 {
		return 0, ErrNoWeight
	}
	// More than the largest table helps nobody: a weight of 1 beside one of a
	// million then has what the largest remainder leaves it.
	largest := tableSizes[len(tableSizes)-1]
	if active == 1 {
		return 1, nil
	}
	need := max(100*active, min((total+least-1)/least, uint64(largest)))
	for _, size := range tableSizes {
		if uint64(size) >= need {
			return size, nil
		}
	}
	if active > uint64(largest) {
		return 0, fmt.Errorf("%w: %d, a table has %d entries; split the service", ErrTooManyBackends, active, largest)
	}
	return largest, nil
}

// MaglevTable fills a table of the size that TableSize gives, or of present,
// the size of the table that it takes the place of, where that is larger. Each
// member has its weight's part of the entries, exact to one entry, at places
// that depend on the addresses and the size only, and a member that goes away
// moves few entries of the others.
//
// It is the table of Eisenbud et al., "Maglev: A Fast and Reliable Software
// Network Load Balancer" (NSDI 2016), section 3.4, with two changes. A member
// stops at its quota. And where the entry at which a member's turn comes is
// taken, the turn is lost, where theirs goes on to the next free entry: so an
// entry is its first comer's whoever else is there. Of the entries of those
// that stay when one of four goes, 1 % change hands, where 20 % did.
//
// A member that rests is only stood in for, so that nobody else's entry changes
// hands when it stops and when it comes back. At least one must not rest.
func MaglevTable(members []Member, present uint32) ([]uint32, error) {
	size, err := TableSize(members)
	if err != nil {
		return nil, err
	}
	size = max(size, present)
	members = slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.Weight == 0 })
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.ID, b.ID))
	})
	if size == 1 {
		return []uint32{members[0].ID}, nil // it does not rest
	}
	rows := make([]row, len(members))
	heaviest := uint64(0)
	for i, quota := range quotas(members, size) {
		rows[i] = newRow(members[i], size, quota)
		heaviest = max(heaviest, uint64(members[i].Weight))
	}
	table := make([]uint32, size)
	taken := make([]bool, size)
	// The heaviest has a turn every round, the others as often as they weigh.
	// A row visits every entry in size turns, so this ends.
	for round, left := uint64(1), size; left > 0; round++ {
		for i := range rows {
			left -= rows[i].play((uint64(rows[i].Weight)*round+heaviest-1)/heaviest, table, taken)
		}
		// The full ones only cost time.
		rows = slices.DeleteFunc(rows, func(r row) bool { return r.quota == 0 })
	}
	return standIn(table, members), nil
}

// standInDraws bounds the draws for an entry. Where one in ten takes
// connections, one entry in a thousand needs more.
const standInDraws = 64

// standIn gives the entries of members that rest to others. An entry draws
// entries of the full table, always in the same order, until it has one of a
// member that does not rest: so each stands in by its weight, and who was drawn
// first has the entry whoever else rests.
func standIn(table []uint32, members []Member) []uint32 {
	resting := map[uint32]bool{}
	var active []uint32
	for _, m := range members {
		if m.Rests {
			resting[m.ID] = true
		} else {
			active = append(active, m.ID)
		}
	}
	if len(resting) == 0 || len(active) == 0 {
		return table
	}
	out := slices.Clone(table)
	for i, id := range table {
		h := uint64(i)
		for draw := 0; resting[id]; draw++ {
			h = mix(h + 1)
			id = table[(h>>32)*uint64(len(table))>>32]
			if draw == standInDraws {
				id = active[(h>>32)*uint64(len(active))>>32]
			}
		}
		out[i] = id
	}
	return out
}

// quotas divides size by weight; what rounding leaves goes to the largest
// remainders, and among equal ones to the first, in the order of addresses.
func quotas(members []Member, size uint32) []uint32 {
	var total uint64
	for _, m := range members {
		total += uint64(m.Weight)
	}
	out := make([]uint32, len(members))
	order := make([]int, len(members))
	remainder := make([]uint64, len(members))
	left := size
	for i, m := range members {
		product := uint64(m.Weight) * uint64(size)
		out[i], remainder[i], order[i] = uint32(product/total), product%total, i
		left -= out[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainder[b], remainder[a]) })
	for _, i := range order[:left] {
		out[i]++
	}
	return out
}

// A row is one member's permutation of the entries: offset, offset+skip, …
// modulo the prime size.
type row struct {
	Member
	at, skip, size uint32
	turns          uint64 // that it has had
	quota          uint32 // entries that it still wants
}

func newRow(m Member, size, quota uint32) row {
	ip, port := m.Addr.Addr().As16(), m.Addr.Port()
	h := fnv.New64a()
	h.Write(ip[:]) // a hash.Hash never fails
	h.Write([]byte{byte(port >> 8), byte(port)})
	// FNV alone leaves neighbouring addresses close together.
	sum := mix(h.Sum64())
	return row{
		Member: m,
		at:     uint32(sum % uint64(size)),
		skip:   uint32(sum>>32%uint64(size-1)) + 1,
		size:   size,
		quota:  quota,
	}
}

// play takes turns up to the one that is due, and returns how many entries
// that won.
func (r *row) play(due uint64, table []uint32, taken []bool) (won uint32) {
	for ; r.turns < due && r.quota > 0; r.turns++ {
		if !taken[r.at] {
			taken[r.at], table[r.at] = true, r.ID
			r.quota--
			won++
		}
		r.at = (r.at + r.skip) % r.size // sizes are below 2^16: no overflow
	}
	return won
}
